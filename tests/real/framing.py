"""Requests of HTTP/1 whose framing, lines or target could be read in two ways.

Each is one visitor's first request with a second one hidden where a careless reader would find
it. `IDID` stands for the variant's number: /v/IDID is what the visitor asks for, /smuggled/IDID
must never be seen.
"""

from dataclasses import dataclass

HIDDEN = b"GET /smuggled/IDID HTTP/1.1\r\nHost: a\r\n\r\n"
N = len(HIDDEN)
# The hidden request as one chunk, and the end of a chunked body.
CHUNK = b"%x\r\n%s\r\n" % (N, HIDDEN)
END = b"0\r\n\r\n"


@dataclass(frozen=True)
class Refused:
    """The backend sees nothing at all."""


@dataclass(frozen=True)
class Cut:
    """The backend may see a beginning, and sees that it has no end."""


@dataclass(frozen=True)
class Passes:
    """The backend sees exactly this request."""

    body: bytes = b""
    target: bytes = b"/v/IDID"
    host: bytes = b"a"


@dataclass(frozen=True)
class Variant:
    """What is sent, and what must come of it."""

    family: str
    name: str
    wire: bytes
    want: Refused | Cut | Passes


def post(fields: bytes, body: bytes, version: bytes = b"1.1") -> bytes:
    """A POST with these fields beside its Host."""
    return b"POST /v/IDID HTTP/%s\r\nHost: a\r\n%s\r\n%s" % (version, fields, body)


def get(line: bytes, fields: bytes = b"Host: a\r\n") -> bytes:
    """A request line and its fields."""
    return line + b"\r\n" + fields + b"\r\n"


def lengths():
    """Content-Length that is not one plain number."""
    for value in (
        b"+%d", b"-%d", b"0x%x", b"%dx", b"%d,", b",%d", b"%d;", b"%d.0", b"%de0", b'"%d"', b"%d\x0b", b"\x0b%d",
        b"%d\x00", b"\x00%d", b"\xa0%d", b"%d\xa0", b"%d chunked", b"1_%d", b"\xef\xbc\x91%d",
    ):
        yield f"the value {value.decode('latin-1')!r}", post(b"Content-Length: " + value % N + b"\r\n", HIDDEN), Refused()
    for value in (b"", b" ", b"4 1", b"4\t1", b"18446744073709551616", b"18446744073709551657", b"9" * 40, b"-0", b"0, 0"):
        yield f"the value {value.decode()!r}", post(b"Content-Length: " + value + b"\r\n", HIDDEN), Refused()
    line = b"Content-Length: %d\r\n" % N
    yield "twice, alike, in a list", post(b"Content-Length: %d, %d\r\n" % (N, N), HIDDEN), Refused()
    yield "twice, differing, in a list", post(b"Content-Length: 0, %d\r\n" % N, HIDDEN), Refused()
    yield "two fields that differ", post(b"Content-Length: 0\r\n" + line, HIDDEN), Refused()
    yield "two fields that differ, the long one first", post(line + b"Content-Length: 0\r\n", HIDDEN), Refused()
    yield "two fields, one of them malformed", post(line + b"Content-Length: +0\r\n", HIDDEN), Refused()
    yield "two fields, the first empty", post(b"Content-Length:\r\n" + line, HIDDEN), Refused()
    yield "two fields alike", post(line + line, HIDDEN), Passes(HIDDEN)
    yield "two fields alike, in two cases", post(line + line.upper(), HIDDEN), Passes(HIDDEN)
    yield "leading zeros", post(b"Content-Length: 000%d\r\n" % N, HIDDEN), Passes(HIDDEN)
    yield "white space around", post(b"Content-Length: \t %d\t \r\n" % N, HIDDEN), Passes(HIDDEN)
    yield "space before the colon", post(b"Content-Length : %d\r\n" % N, HIDDEN), Refused()
    yield "tab before the colon", post(b"Content-Length\t: %d\r\n" % N, HIDDEN), Refused()
    yield "a folded line", post(b"Content-Length:\r\n %d\r\n" % N, HIDDEN), Refused()
    yield "NUL in the name", post(b"Content-Length\x00: %d\r\n" % N, HIDDEN), Refused()
    yield "a vertical tab before the name", post(b"\x0bContent-Length: %d\r\n" % N, HIDDEN), Refused()
    yield "a space before the name", get(b"POST /v/IDID HTTP/1.1", b" Content-Length: %d\r\nHost: a\r\n" % N) + HIDDEN, Refused()


def codings():
    """Transfer-Encoding that is not exactly `chunked`."""
    body = CHUNK + END
    for value in (b"chunked", b"\tchunked", b" chunked \t", b"Chunked", b"CHUNKED", b"cHuNkEd"):
        yield f"the value {value.decode()!r}", post(b"Transfer-Encoding:" + value + b"\r\n", body), Passes(HIDDEN)
    for value in (
        b"", b"identity", b"cow", b"xchunked", b"chunkedx", b"chunk", b"chunked;q=1", b'"chunked"', b"'chunked'",
        b"chun ked", b"chunked\x0b", b"\x0bchunked", b"chunked\x00", b"\x00chunked", b"chunked\xa0", b"\xc2\xa0chunked",
        b"chunked,", b",chunked", b"chunked, identity", b"identity, chunked", b"gzip, chunked", b"chunked, chunked",
        b"chunked\x0cgzip", b"chun\xc4\xb1ed", b"gzip", b"chunked gzip",
    ):
        yield f"the value {value.decode('latin-1')!r}", post(b"Transfer-Encoding: " + value + b"\r\n", body), Refused()
    one = b"Transfer-Encoding: chunked\r\n"
    for other in (b"chunked", b"identity", b"cow", b""):
        line = b"Transfer-Encoding: " + other + b"\r\n"
        yield f"two fields, the second {other.decode()!r}", post(one + line, body), Refused()
        yield f"two fields, the first {other.decode()!r}", post(line + one, body), Refused()
    yield "space before the colon", post(b"Transfer-Encoding : chunked\r\n", body), Refused()
    yield "tab before the colon", post(b"Transfer-Encoding\t: chunked\r\n", body), Refused()
    yield "a folded line", post(b"Transfer-Encoding:\r\n chunked\r\n", body), Refused()
    yield "a folded line with a tab", post(b"Transfer-Encoding: \r\n\tchunked\r\n", body), Refused()
    yield "behind a bare CR", post(b"X: y\rTransfer-Encoding: chunked\r\n", body), Refused()
    yield "a bare CR behind it", post(b"Transfer-Encoding: chunked\rX: y\r\n", body), Refused()
    yield "a space before the name", post(b" Transfer-Encoding: chunked\r\n", body), Refused()
    yield "NUL in the name", post(b"Transfer-\x00Encoding: chunked\r\n", body), Refused()
    yield "in HTTP/1.0", post(one, body, b"1.0"), Refused()
    # Another name is another field: the request has no body, and what follows is the next one.
    follow = get(b"GET /after/IDID HTTP/1.1")
    yield "an underscore in the name is another field", post(b"Transfer_Encoding: chunked\r\n", follow), Passes()


def both():
    """Content-Length and Transfer-Encoding at once, in every order."""
    # Read by the length the request ends after the hidden one; read by chunks, before it.
    body = END + HIDDEN
    codings = {
        "chunked": b"Transfer-Encoding: chunked\r\n",
        "CHUNKED": b"Transfer-Encoding: CHUNKED\r\n",
        "an unknown one": b"Transfer-Encoding: xchunked\r\n",
        "identity": b"Transfer-Encoding: identity\r\n",
        "chunked, then identity": b"Transfer-Encoding: chunked, identity\r\n",
        "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "one with a space before the colon": b"Transfer-Encoding : chunked\r\n",
        "an empty one": b"Transfer-Encoding:\r\n",
    }
    sizes = {
        "of the whole": b"Content-Length: %d\r\n" % len(body),
        "of nothing": b"Content-Length: 0\r\n",
        "up to the hidden request": b"Content-Length: %d\r\n" % len(END),
        "twice": b"Content-Length: %d\r\nContent-Length: %d\r\n" % (len(body), len(body)),
        "that is malformed": b"Content-Length: +%d\r\n" % len(body),
    }
    for coding, te in codings.items():
        for size, cl in sizes.items():
            # RFC 9112 6.3 lets a server go by the coding, or refuse.
            yield f"a length {size}, then {coding}", post(cl + te, body), Refused()
            yield f"{coding}, then a length {size}", post(te + cl, body), Refused()
    yield "a coding between two lengths", post(sizes["of the whole"] + codings["chunked"] + sizes["of nothing"], body), Refused()
    yield "both, in HTTP/1.0", post(sizes["of the whole"] + codings["chunked"], body, b"1.0"), Refused()


def chunks():
    """Bodies whose chunks are not by the letter."""

    def sent(body: bytes) -> bytes:
        return post(b"Transfer-Encoding: chunked\r\n", body)

    for size in (b"+%x", b"-%x", b"0x%x", b"_%x", b"%x_", b"%x_0", b" %x", b"\t%x", b"\x0b%x", b"%x\x0b", b"%x\x00", b"%xg", b"%x,", b"%x.0", b"%xh", b'"%x"', b"%x 0", b"%x\r"):
        yield f"the size {size.decode()!r}", sent(size % N + b"\r\n" + HIDDEN + b"\r\n" + END), Cut()
    for size in (b"", b"g", b"-0", b"0x0", b"10000000000000000", b"fffffffffffffffff", b"f" * 40, b"1" + b"0" * 15 + b"%x" % N):
        yield f"the size {size.decode()!r}", sent(size + b"\r\n" + HIDDEN + b"\r\n" + END), Cut()
    yield "the largest size there is", sent(b"ffffffffffffffff\r\n" + HIDDEN + b"\r\n" + END), Cut()
    for size in (b"000%x", b"%x ", b"%x\t ", b"%x;a=b", b"%x;a", b"%x ; a = b", b'%x;a="b;c"', b"%x;"):
        yield f"the size {size.decode()!r} is fine", sent(size % N + b"\r\n" + HIDDEN + b"\r\n" + END), Passes(HIDDEN)
    yield "a huge extension", sent(b"%x;%s\r\n" % (N, b"a" * 40_000) + HIDDEN + b"\r\n" + END), Cut()
    yield "LF in an extension", sent(b"%x;a\nb\r\n" % N + HIDDEN + b"\r\n" + END), Cut()
    yield "CR in an extension", sent(b"%x;a\rb\r\n" % N + HIDDEN + b"\r\n" + END), Cut()
    yield "LF ends a size", sent(b"%x\n" % N + HIDDEN + b"\r\n" + END), Cut()
    yield "CR ends a size", sent(b"%x\r" % N + HIDDEN + b"\r\n" + END), Cut()
    yield "LF ends a chunk", sent(b"%x\r\n" % N + HIDDEN + b"\n" + END), Cut()
    yield "nothing ends a chunk", sent(b"%x\r\n" % N + HIDDEN + END), Cut()
    yield "two bytes too many in a chunk", sent(b"%x\r\n" % (N - 2) + HIDDEN + b"\r\n" + END), Cut()
    yield "a chunk that is too short", sent(b"%x\r\n" % (N + 9) + HIDDEN + b"\r\n" + END), Cut()
    yield "LF ends the last chunk", sent(b"0\n\r\n" + HIDDEN), Cut()
    yield "LF ends the body", sent(b"0\r\n\n" + HIDDEN), Cut()
    yield "the end is missing", sent(CHUNK), Cut()
    yield "the empty line at the end is missing", sent(CHUNK + b"0\r\n"), Cut()
    yield "several zeros end it", sent(CHUNK + b"0000\r\n\r\n"), Passes(HIDDEN)
    yield "a trailer without a colon", sent(CHUNK + b"0\r\nGET /smuggled/IDID HTTP/1.1\r\n\r\n"), Cut()
    yield "a folded trailer", sent(CHUNK + b"0\r\nX: y\r\n z\r\n\r\n"), Cut()
    yield "a bare CR in a trailer", sent(CHUNK + b"0\r\nX: y\rz\r\n\r\n"), Cut()
    yield "NUL in a trailer", sent(CHUNK + b"0\r\nX: y\x00\r\n\r\n"), Cut()
    yield "huge trailers", sent(CHUNK + b"0\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 20_000 + b"\r\n"), Cut()
    for name in (b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: b", b"Connection: close"):
        head = b"Transfer-Encoding: chunked\r\nTrailer: %s\r\n" % name.split(b":")[0]
        yield f"{name.decode()} as a trailer", post(head, CHUNK + b"0\r\n" + name + b"\r\n\r\n"), Passes(HIDDEN)


def lines():
    """Line endings, control bytes, and request lines that are none."""
    fine = b"GET /v/IDID HTTP/1.1"
    # RFC 9112 2.2 lets a recipient take a lone LF for the end of a line.
    yield "LF ends every line", b"GET /v/IDID HTTP/1.1\nHost: a\nX: y\n\n", Passes()
    yield "LF ends some lines", get(fine, b"X: y\nHost: a\r\n"), Passes()
    yield "empty lines before", b"\r\n\r\n" + get(fine), Passes()
    yield "CR ends every line", b"GET /v/IDID HTTP/1.1\rHost: a\r\r", Cut()
    for byte in (b"\x00", b"\r", b"\x01", b"\x08", b"\x7f", b"\x1b"):
        shown = f"{byte!r}"[1:]
        yield f"{shown} in a value", get(fine, b"Host: a\r\nX: y%sz\r\n" % byte), Refused()
        yield f"{shown} in a name", get(fine, b"Host: a\r\nX%sY: z\r\n" % byte), Refused()
        yield f"{shown} in the target", get(b"GET /v/IDID%sx HTTP/1.1" % byte), Refused()
        yield f"{shown} in the method", get(b"GE%sT /v/IDID HTTP/1.1" % byte), Refused()
        yield f"{shown} in the version", get(b"GET /v/IDID HTTP/1.%s1" % byte), Refused()
    for version in (b"HTTP/1.1x", b"HTTP/11", b"http/1.1", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.", b"HTTP/ 1.1", b"HTTP /1.1", b"HTTP/01.1", b"HTTPS/1.1", b"HTTP/1.1 HTTP/1.1", b"HTTP/1.1\x0b"):
        yield f"the version {version.decode()!r}", get(b"GET /v/IDID " + version), Refused()
    yield "no version", b"GET /v/IDID\r\n\r\n" + HIDDEN, Refused()
    yield "no version and no end", b"GET /v/IDID\r\n", Refused()
    yield "two spaces after the method", get(b"GET  /v/IDID HTTP/1.1"), Refused()
    yield "two spaces before the version", get(b"GET /v/IDID  HTTP/1.1"), Refused()
    yield "tabs for spaces", get(b"GET\t/v/IDID\tHTTP/1.1"), Refused()
    yield "a space before the method", get(b" GET /v/IDID HTTP/1.1"), Refused()
    yield "a space in the target", get(b"GET /v/IDID x HTTP/1.1"), Refused()
    yield "a request in the target", get(b"GET /v/IDID HTTP/1.1 GET /smuggled/IDID HTTP/1.1"), Refused()
    yield "no target", get(b"GET  HTTP/1.1"), Refused()
    yield "a field without a colon", get(fine, b"Host: a\r\nX\r\n"), Refused()
    yield "a field without a name", get(fine, b"Host: a\r\n: x\r\n"), Refused()
    yield "a space in a name", get(fine, b"Host: a\r\nX Y: z\r\n"), Refused()
    yield "a bracket in a name", get(fine, b"Host: a\r\nX(: z\r\n"), Refused()
    yield "bytes beyond ASCII in a name", get(fine, b"Host: a\r\nX\xc3\xa4: z\r\n"), Refused()
    yield "a folded field", get(fine, b"Host: a\r\nX: y\r\n z\r\n"), Refused()
    yield "a space before the first field", get(fine, b" X: y\r\nHost: a\r\n"), Refused()
    yield "a line of white space", get(fine, b"Host: a\r\n \r\n") + HIDDEN, Refused()
    yield "a line of a lone CR", b"GET /v/IDID HTTP/1.1\r\nHost: a\r\n\rGET /smuggled/IDID HTTP/1.1\r\n\r\n", Refused()
    yield "a byte order mark", b"\xef\xbb\xbf" + get(fine), Refused()
    yield "a response", b"HTTP/1.1 200 OK\r\nHost: a\r\n\r\n" + HIDDEN, Refused()
    yield "a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), Refused()


def targets():
    """Whom a request is for."""
    yield "no Host", get(b"GET /v/IDID HTTP/1.1", b""), Refused()
    yield "no Host in HTTP/1.0", get(b"GET /v/IDID HTTP/1.0", b""), Refused()
    yield "no Host beside the absolute form", get(b"GET http://a/v/IDID HTTP/1.1", b""), Refused()
    yield "two alike", get(b"GET /v/IDID HTTP/1.1", b"Host: a\r\nHost: a\r\n"), Refused()
    yield "two that differ", get(b"GET /v/IDID HTTP/1.1", b"Host: a\r\nHost: b\r\n"), Refused()
    yield "two in two cases", get(b"GET /v/IDID HTTP/1.1", b"HOST: a\r\nhost: b\r\n"), Refused()
    yield "two beside the absolute form", get(b"GET http://a/v/IDID HTTP/1.1", b"Host: a\r\nHost: b\r\n"), Refused()
    for host in (
        b"", b" ", b"a b", b"a, b", b"u@a", b"a/b", b"a?b", b"a#b", b"a:b", b"a:99999", b"a:-1", b":80", b"[::1", b"[x]",
        b"::1", b"a\tb", b"a\\b", b"http://a", b"\xc3\xa4", b"a:80:80", b"<a>", b"a:+80", b"a: 80",
    ):
        yield f"Host {host.decode('latin-1')!r}", get(b"GET /v/IDID HTTP/1.1", b"Host: " + host + b"\r\n"), Refused()
    yield "Host with a space before the colon", get(b"GET /v/IDID HTTP/1.1", b"Host : a\r\n"), Refused()
    yield "Host in a folded line", get(b"GET /v/IDID HTTP/1.1", b"Host:\r\n a\r\n"), Refused()
    yield "the absolute form", get(b"GET http://a/v/IDID HTTP/1.1"), Passes()
    yield "the absolute form, in capitals", get(b"GET HTTP://A/v/IDID HTTP/1.1"), Passes(host=b"A")
    yield "the absolute form against Host", get(b"GET http://b/v/IDID HTTP/1.1"), Refused()
    yield "the absolute form with another port than Host", get(b"GET http://a:81/v/IDID HTTP/1.1"), Refused()
    yield "the absolute form with a user", get(b"GET http://u@a/v/IDID HTTP/1.1"), Refused()
    yield "the absolute form with a user, as Host", get(b"GET http://u@a/v/IDID HTTP/1.1", b"Host: u@a\r\n"), Refused()
    yield "the absolute form without a host", get(b"GET http:///v/IDID HTTP/1.1"), Refused()
    yield "the absolute form of another scheme", get(b"GET ftp://a/v/IDID HTTP/1.1"), Refused()
    yield "the absolute form without slashes", get(b"GET http:a/v/IDID HTTP/1.1"), Refused()
    yield "a path without its slash", get(b"GET v/IDID HTTP/1.1"), Refused()
    yield "an authority for GET", get(b"GET a:80 HTTP/1.1", b"Host: a:80\r\n"), Refused()
    yield "an asterisk for GET", get(b"GET * HTTP/1.1"), Refused()
    yield "CONNECT", get(b"CONNECT a:80 HTTP/1.1", b"Host: a:80\r\n") + HIDDEN, Refused()
    yield "CONNECT with a path", get(b"CONNECT /v/IDID HTTP/1.1") + HIDDEN, Refused()
    yield "a path that looks like a host", get(b"GET //b/v/IDID HTTP/1.1"), Passes(target=b"//b/v/IDID")
    yield "CRLF in percent signs", get(b"GET /v/IDID?%0d%0aHost:%20b HTTP/1.1"), Passes(target=b"/v/IDID?%0d%0aHost:%20b")
    yield "dots in the path", get(b"GET /v/IDID/../x/%2e%2e/y HTTP/1.1"), Passes(target=b"/v/IDID/../x/%2e%2e/y")


def leftovers():
    """What stands behind a request that is answered before, or without, its body."""
    length = b"Content-Length: %d\r\n" % N
    yield "a GET with a body", get(b"GET /v/IDID HTTP/1.1", b"Host: a\r\n" + length) + HIDDEN, Passes(HIDDEN)
    yield "a GET with a chunked body", get(b"GET /v/IDID HTTP/1.1", b"Host: a\r\nTransfer-Encoding: chunked\r\n") + CHUNK + END, Passes(HIDDEN)
    yield "a HEAD with a body", get(b"HEAD /v/IDID HTTP/1.1", b"Host: a\r\n" + length) + HIDDEN, Passes(HIDDEN)
    yield "a DELETE with a chunked body", get(b"DELETE /v/IDID HTTP/1.1", b"Host: a\r\nTransfer-Encoding: chunked\r\n") + CHUNK + END, Passes(HIDDEN)
    yield "a refused method with a body", get(b"TRACE /v/IDID HTTP/1.1", b"Host: a\r\n" + length) + HIDDEN, Refused()
    yield "a refused Host with a body", get(b"POST /v/IDID HTTP/1.1", b"Host: a b\r\n" + length) + HIDDEN, Refused()
    long = b"x" * 20_000
    yield "a refused target with a body", get(b"POST /v/IDID/" + long + b" HTTP/1.1", b"Host: a\r\n" + length) + HIDDEN, Refused()
    yield "a refused head with a body", post(b"X: y\r\n" * 99 + length, HIDDEN), Refused()
    yield "behind Connection: close", post(b"Connection: close\r\n", HIDDEN), Passes()
    yield "behind Connection: close, keep-alive", post(b"Connection: close\r\nConnection: keep-alive\r\n", HIDDEN), Passes()
    yield "behind HTTP/1.0", get(b"GET /v/IDID HTTP/1.0") + HIDDEN, Passes()
    for name in (b"Content-Length", b"Host", b"Transfer-Encoding", b"X-Forwarded-For"):
        yield f"Connection names {name.decode()}", post(b"Connection: %s\r\n" % name + length, HIDDEN), Passes(HIDDEN)
    chunked = b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n"
    yield "Connection names the coding it has", post(chunked, CHUNK + END), Passes(HIDDEN)
    met = Passes(HIDDEN)
    for expect, want in (
        (b"100-continue", met), (b"100-Continue", met), (b"100-continue, 100-continue", met), (b"", met),
        (b"x", Refused()), (b"y 100-continue", Refused()),
    ):
        yield f"Expect: {expect.decode()}", post(b"Expect: " + expect + b"\r\n" + length, HIDDEN), want
    upgrade = b"Connection: Upgrade\r\nUpgrade: %s\r\n"
    yield "an upgrade to h2c", post(upgrade % b"h2c" + b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n" + length, HIDDEN), Passes(HIDDEN)
    yield "an upgrade to something", post(upgrade % b"smuggle/1.0" + length, HIDDEN), Passes(HIDDEN)
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    socket = upgrade % b"websocket" + key + b"Sec-WebSocket-Version: %s\r\n"
    yield "a WebSocket with a body", get(b"GET /v/IDID HTTP/1.1", b"Host: a\r\n" + socket % b"13" + length) + HIDDEN, Refused()
    yield "a WebSocket of another version with a body", get(b"GET /v/IDID HTTP/1.1", b"Host: a\r\n" + socket % b"7" + length) + HIDDEN, Refused()
    yield "a WebSocket by POST", post(socket % b"13" + length, HIDDEN), Refused()


FAMILIES = {
    "Content-Length": lengths,
    "Transfer-Encoding": codings,
    "both framings": both,
    "chunks": chunks,
    "lines": lines,
    "Host and target": targets,
    "what follows": leftovers,
}


def variants(family: str) -> list[Variant]:
    """The variants of one family."""
    return [Variant(family, *row) for row in FAMILIES[family]()]
