"""Requests of HTTP/2 that would say something else once they are written as HTTP/1.1.

`IDID` stands for the variant's number, as in framing.py.
"""

from dataclasses import dataclass

from frames import DATA, HEADERS, END_HEADERS, END_STREAM, PADDED, block, data, frame, headers, request
from framing import HIDDEN, N, Cut, Passes, Refused

PATH = b"/v/IDID"
FINE = request(PATH, b"POST")
OTHER = {b":method": b"PUT", b":scheme": b"https", b":path": b"/smuggled/IDID", b":authority": b"b"}
CRLF = (b"\r\nTransfer-Encoding: chunked\r\n", b"\nx: y", b"\ry", b"\x00", b"\r\n\r\n" + HIDDEN)


@dataclass(frozen=True)
class Variant:
    """What is sent on stream 1, and what must come of it."""

    name: str
    wire: bytes
    want: Refused | Cut | Passes
    # Whether the connection goes on (RFC 9113 5.4.2) or ends (5.4.1); None where it may do either.
    lives: bool | None = True


def one(fields, body: bytes | None = None) -> bytes:
    """A request of one head, and at most one piece."""
    marked = [*fields, (b"x-id", b"IDID")]
    return headers(1, marked, body is None) + (b"" if body is None else data(1, body))


def without(name: bytes):
    """The fine request without one of its fields."""
    return [pair for pair in FINE if pair[0] != name]


def instead(name: bytes, value: bytes):
    """The fine request with another value of one field."""
    return [(n, value if n == name else v) for n, v in FINE]


def pseudo():
    """Pseudo-fields (RFC 9113 8.3)."""
    for name, value in FINE:
        shown = name.decode()
        # The HTTP library takes a method or a name that is no token for an error of compression.
        lives = name != b":method"
        if name != b":authority":
            yield f"no {shown}", one(without(name)), Refused()
        yield f"{shown} twice", one([*FINE, (name, value)]), Refused()
        yield f"{shown} twice, differing", one([*FINE, (name, OTHER[name])]), Refused()
        yield f"{shown} behind a plain field", one([*without(name), (b"x", b"y"), (name, value)]), Refused()
        for bad in CRLF:
            yield f"{shown} with {bad[:4]!r}", one(instead(name, value + bad), HIDDEN), Refused(), lives
        yield f"{shown} with a space before", one(instead(name, b" " + value)), Refused(), lives
        yield f"{shown} with a space behind", one(instead(name, value + b" ")), Refused(), lives
        if name != b":authority":
            yield f"{shown} that is empty", one(instead(name, b"")), Refused(), lives
    line = b"GET /smuggled/IDID HTTP/1.1\r\nHost: a\r\n\r\nGET"
    yield "a request line in :method", one(instead(b":method", line)), Refused(), False
    yield "a space in :method", one(instead(b":method", b"GET /smuggled/IDID")), Refused(), False
    yield "a version in :path", one(instead(b":path", b"/v/IDID HTTP/1.1")), Refused()
    yield "a :path without its slash", one(instead(b":path", b"v/IDID")), Refused()
    yield "the absolute form in :path", one(instead(b":path", b"http://b/smuggled/IDID")), Refused()
    yield "an asterisk in :path", one(instead(b":path", b"*")), Refused()
    yield "another scheme", one(instead(b":scheme", b"ftp")), Refused()
    yield "a whole address in :scheme", one(instead(b":scheme", b"http://b/smuggled/IDID")), Refused()
    for authority in (b"", b"u@a", b"a/b", b"a, b", b"a:99999", b"a\\b", b":80"):
        yield f":authority {authority.decode()!r}", one(instead(b":authority", authority)), Refused()
    yield ":status", one([*FINE, (b":status", b"200")]), Refused()
    yield ":protocol without CONNECT", one([*FINE, (b":protocol", b"websocket")]), Refused()
    yield "an unknown pseudo-field", one([(b":smuggle", b"1"), *FINE]), Refused(), False
    yield "CONNECT", one([(b":method", b"CONNECT"), (b":authority", b"a:80")]), Refused()
    yield "CONNECT with a path", one(instead(b":method", b"CONNECT")), Refused()
    yield "CONNECT with a protocol nobody offered", one([*instead(b":method", b"CONNECT"), (b":protocol", b"smuggle")]), Refused()


def fields():
    """Plain fields (RFC 9113 8.2)."""
    for name, value in (
        (b"connection", b"close"), (b"connection", b"content-length"), (b"keep-alive", b"timeout=5"), (b"proxy-connection", b"close"),
        (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"identity"), (b"upgrade", b"h2c"), (b"upgrade", b"websocket"),
        (b"te", b"gzip"), (b"te", b"trailers, chunked"), (b"te", b"chunked"),
    ):
        yield f"{name.decode()}: {value.decode()}", one([*FINE, (name, value)], HIDDEN), Refused()
    yield "te: trailers", one([*FINE, (b"te", b"trailers")], HIDDEN), Passes(HIDDEN)
    for bad in CRLF:
        yield f"{bad[:4]!r} in a value", one([*FINE, (b"x", b"y" + bad)], HIDDEN), Refused(), False
        yield f"{bad[:4]!r} in a name", one([*FINE, (b"x" + bad, b"y")], HIDDEN), Refused(), False
        yield f"{bad[:4]!r} in host", one([*without(b":authority"), (b"host", b"a" + bad)], HIDDEN), Refused(), False
    for name in (b"X", b"Content-Length", b"Transfer-Encoding", b"x y", b"x:", b"", b"x\xc3\xa4"):
        yield f"the name {name.decode()!r}", one([*FINE, (name, b"0")], HIDDEN), Refused(), False
    yield "white space before a value", one([*FINE, (b"x", b" y")], HIDDEN), Refused()
    yield "white space behind a value", one([*FINE, (b"x", b"y\t")], HIDDEN), Refused()
    yield "host that agrees", one([*FINE, (b"host", b"a")], HIDDEN), Passes(HIDDEN)
    yield "host alone", one([*without(b":authority"), (b"host", b"a")], HIDDEN), Passes(HIDDEN)
    yield "host that differs", one([*FINE, (b"host", b"b")], HIDDEN), Refused()
    yield "two hosts", one([*FINE, (b"host", b"a"), (b"host", b"a")], HIDDEN), Refused()
    yield "two hosts and no :authority", one([*without(b":authority"), (b"host", b"a"), (b"host", b"b")], HIDDEN), Refused()
    yield "neither host nor :authority", one(without(b":authority"), HIDDEN), Refused()
    yield "cookies in crumbs", one([*FINE, (b"cookie", b"a=1"), (b"cookie", b"b=2")], HIDDEN), Passes(HIDDEN)


def bodies():
    """Lengths that lie, bodies where none are expected, trailers (RFC 9113 8.1)."""
    size = b"content-length"
    yield "the length it says", one([*FINE, (size, b"%d" % N)], HIDDEN), Passes(HIDDEN)
    yield "less than it says", one([*FINE, (size, b"%d" % (N + 1))], HIDDEN), Cut()
    yield "more than it says", one([*FINE, (size, b"5")], HIDDEN), Cut()
    yield "more than nothing", one([*FINE, (size, b"0")], HIDDEN), Cut()
    yield "nothing of what it says", one([*FINE, (size, b"5")]), Cut()
    yield "two lengths", one([*FINE, (size, b"%d" % N), (size, b"0")], HIDDEN), Cut()
    for value in (b"+%d", b"0x%x", b"%d, %d", b"-%d", b"%d ", b"", b"%dx"):
        said = value % ((N,) * value.count(b"%"))
        yield f"the length {said.decode()!r}", one([*FINE, (size, said)], HIDDEN), Cut()
    yield "a GET with a body", one(request(PATH), HIDDEN), Passes(HIDDEN)
    yield "a HEAD with a body", one(request(PATH, b"HEAD"), HIDDEN), Passes(HIDDEN)
    yield "a body that reads like the end of chunks", one(FINE, b"0\r\n\r\n" + HIDDEN), Passes(b"0\r\n\r\n" + HIDDEN)

    def trailed(*trailers, end: bool = True) -> bytes:
        named = [*FINE, (b"trailer", b"x-sum, content-length, transfer-encoding, host, connection"), (b"x-id", b"IDID")]
        return headers(1, named, False) + data(1, HIDDEN, False) + headers(1, list(trailers), end)

    for name, value in ((b"connection", b"close"), (b"transfer-encoding", b"chunked")):
        yield f"{name.decode()} as a trailer", trailed((name, value)), Cut()
    yield "CRLF in a trailer", trailed((b"x-sum", b"1\r\n\r\n" + HIDDEN)), Cut(), False
    yield "trailers that do not end the stream", trailed((b"x-sum", b"1"), end=False), Cut()
    yield "host as a trailer", trailed((b"host", b"b")), Passes(HIDDEN)
    yield "content-length as a trailer", trailed((size, b"5")), Passes(HIDDEN)
    # The HTTP library drops it, instead of refusing the request.
    yield ":path as a trailer", trailed((b":path", b"/smuggled/IDID")), Passes(HIDDEN)
    late = headers(1, [*FINE, (b"x-id", b"IDID")])
    yield "a body behind the end", late + data(1, HIDDEN), Cut(), None
    yield "a head behind the end", late + headers(1, request(b"/smuggled/IDID")), Cut(), None


def streams():
    """Frames where none may be (RFC 9113 5.1, 6.1, 6.2, 6.10)."""
    fine = block([*FINE, (b"x-id", b"IDID")])
    yield "a body on no stream", frame(DATA, END_STREAM, 0, HIDDEN), Refused(), False
    yield "a body before its head", data(1, HIDDEN), Refused(), False
    yield "a head on no stream", frame(HEADERS, END_HEADERS | END_STREAM, 0, fine), Refused(), False
    yield "a head on an even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, fine), Refused(), False
    yield "more padding than frame", frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\xff" + fine), Refused(), False
    yield "more padding than body", headers(1, FINE, False) + frame(DATA, END_STREAM | PADDED, 1, b"\xff" + HIDDEN), Cut(), False
    yield "another frame within a head", frame(HEADERS, END_STREAM, 1, fine) + data(1, HIDDEN), Refused(), False
    yield "a head that is cut within a field", frame(HEADERS, END_HEADERS | END_STREAM, 1, fine[:-3]), Refused(), False
    yield "a head by HTTP/1", b"POST /v/IDID HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN, Refused(), False
    yield "a frame that is too large", frame(DATA, 0, 1, bytes(20_000)), Refused(), False


FAMILIES = {"pseudo-fields": pseudo, "fields": fields, "bodies": bodies, "streams": streams}


def variants(family: str) -> list[Variant]:
    """The variants of one family."""
    return [Variant(*row) for row in FAMILIES[family]()]
