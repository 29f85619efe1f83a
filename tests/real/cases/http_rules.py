"""Rules of HTTP that curl does not try, byte for byte: half-closed visitors, interim answers, HTTP/1.0."""

import asyncio
import contextlib
import socket
import struct
import time

import frames
from case import ENTRIES, case
from curl import curl
from frames import Http2, headers, request
from process import until
from recorder import Recorder
from strait import Service


class Visitor:
    """One connection by HTTP/1."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, address: str, **options) -> "Visitor":
        host, _, port = address.partition(":")
        return cls(*await asyncio.open_connection(host, int(port), **options))

    def ask(self, line: str, fields=(), body: bytes = b"", shut: bool = False) -> None:
        """Sends a request, and with `shut` nothing more."""
        head = "\r\n".join([line, "Host: a", *fields]) + "\r\n\r\n"
        self.writer.write(head.encode() + body)
        if shut:
            self.writer.write_eof()

    async def head(self) -> tuple[bytes, dict[bytes, bytes]]:
        """The status line and the fields of the next head."""
        text = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        lines = text[:-4].split(b"\r\n")
        return lines[0], dict(line.lower().split(b": ", 1) for line in lines[1:])

    async def final(self) -> tuple[int, dict[bytes, bytes], int]:
        """The status and fields of the next final head, and how many interim ones came before."""
        interim = 0
        while True:
            line, fields = await self.head()
            status = int(line.split(b" ")[1])
            if status >= 200 or status == 101:
                return status, fields, interim
            interim += 1

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return await asyncio.wait_for(self.reader.read(-1), 10)

    def leave(self) -> None:
        self.writer.close()


@contextlib.asynccontextmanager
async def visiting(address: str, **options):
    """A visitor that leaves with the block."""
    visitor = await Visitor.of(address, **options)
    try:
        yield visitor
    finally:
        visitor.leave()


async def noticed(t, key: str, seconds: float = 5):
    """When the backend noticed something."""

    async def check():
        return (await t.backends.seen()).get(key)

    return await until(f"the backend notes {key}", check, seconds)


@case("a visitor who has shut its writing side gets its answer", ENTRIES)
async def shut(t):
    for line, body in (
        ("GET /wait?ms=700&note=shut HTTP/1.1", b""),
        ("GET /hello HTTP/1.1", b""),
        ("POST /digest HTTP/1.1", b"5\r\nhello\r\n0\r\n\r\n"),
        ("GET /bytes?n=3000000 HTTP/1.1", b""),
        ("GET /bytes?n=300000&framing=chunked HTTP/1.1", b""),
    ):
        fields = ["Transfer-Encoding: chunked"] if body else []
        async with visiting(t.world.http, limit=1 << 16) as visitor:
            visitor.ask(line, fields, body, shut=True)
            status, said, interim = await visitor.final()
            if "bytes" in line:
                # Slowly: what is left must not be lost with the connection.
                await asyncio.sleep(0.3)
            rest = await visitor.rest()
        assert status == 200, (line, status)
        # Only who waits is asked whether it is there.
        assert interim == ("wait" in line), (line, interim)
        if size := said.get(b"content-length"):
            assert len(rest) == int(size), (line, len(rest), size)
        else:
            assert rest.endswith(b"0\r\n\r\n"), (line, rest[-20:])


@case("a visitor who has closed is noticed at once, however it did", ENTRIES)
async def gone(t):
    slowest = 0.0
    for number, (line, reset) in enumerate((
        ("GET /wait?ms=20000&note={} HTTP/1.1", False),
        ("GET /wait?ms=20000&note={} HTTP/1.1", True),
        ("GET /wait?ms=20000&note={} HTTP/1.0", False),
        ("GET /never-read?note={} HTTP/1.1", False),
    )):
        note = f"gone-{t.mode}-{number}"
        async with visiting(t.world.http) as visitor:
            visitor.ask(line.format(note))
            await noticed(t, f"{note}:began")
            left = time.time()
            if reset:
                visitor.writer.transport.abort()
            else:
                visitor.leave()
        late = await noticed(t, f"{note}:cancelled") - left
        slowest = max(slowest, late)
        assert late < 1, f"{line}: only after {late:.2f} s"
    t.note(f"slowest {slowest * 1000:.0f} ms")
    # Within an answer that says nothing for a long time.
    async with visiting(t.world.http) as visitor:
        visitor.ask("GET /events?n=3&ms=20000 HTTP/1.1")
        await visitor.final()
    await t.world.pair.clean(2)


@case("a visitor who leaves in the middle of its body is noticed", ENTRIES)
async def half_sent(t):
    _, port = await t.fast(f"backend-half-{t.mode}")
    world = await t.alone(f"half-{t.mode}", services=[Service("http", port)])
    for how in ("close", "shut"):
        async with visiting(world.http) as visitor:
            visitor.ask("POST /digest HTTP/1.1", ["Content-Length: 10"], b"hello")
            await asyncio.sleep(0.2)
            if how == "shut":
                visitor.writer.write_eof()
            else:
                visitor.leave()
            began = time.monotonic()
            await world.pair.clean(5)
            t.note(f"{how}: {time.monotonic() - began:.2f} s")


@contextlib.asynccontextmanager
async def answering(t, name: str, answer, scheme: str = "", **flags):
    """A world of its own before a backend that does with each connection what `answer` says."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = f"{scheme}://127.0.0.1:{port}" if scheme else port
    try:
        yield await t.alone(f"{name}-{t.mode}", services=[Service("http", address)], **flags)
    finally:
        server.close()


def always(*answers: bytes):
    """A backend that reads heads and answers each with these bytes."""

    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                for piece in answers:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)
        writer.close()

    return answer


@case("interim answers of a backend do not confuse the final one", ENTRIES)
async def interim(t):
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Final: 1\r\n\r\nfinal"
    async with answering(t, "interim", always(early, final)) as world:
        for http in ("1.1", "2"):
            for _ in range(2):
                got = (await curl(f"http://{world.http}/", http=http)).is_ok()
                assert got.body == b"final" and got.one("x-final") == b"1" and got.one("link") is None, got.headers


@case("hop-by-hop fields of an answer end at the backend's leg", ENTRIES)
async def hop_by_hop(t):
    fields = b"Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Public: 2\r\n"
    final = b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\nok"
    async with answering(t, "hops", always(final)) as world:
        for http in ("1.1", "2"):
            got = (await curl(f"http://{world.http}/", http=http)).is_ok()
            names = {name for name, _ in got.headers}
            hops = {"connection", "x-private", "keep-alive", "proxy-authenticate", "proxy-connection", "upgrade"}
            assert got.one("x-public") == b"2" and not names & hops, got.headers


@case("answers without a body keep the connection in step", ENTRIES)
async def in_step(t):
    bodiless = {
        "GET /304": b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",
        "GET /204": b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
        "GET /204/length": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "HEAD /length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HEAD /chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HEAD /none": b"HTTP/1.1 200 OK\r\n\r\n",
    }

    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                words = head.split(b" ", 2)
                known = bodiless.get(b" ".join(words[:2]).decode())
                writer.write(known or b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    async with answering(t, "in-step", answer) as world, visiting(world.http) as visitor:
        for line, known in bodiless.items():
            visitor.ask(f"{line} HTTP/1.1")
            status, fields, _ = await visitor.final()
            assert status == int(known[9:12]), (line, status)
            # RFC 9110 8.6: a 204 must have none, a 304 need not.
            length = fields.get(b"content-length")
            assert length == (b"5" if line == "HEAD /length" else None), (line, fields)
            assert b"transfer-encoding" not in fields or "HEAD" in line, (line, fields)
            visitor.ask("GET /hello HTTP/1.1")
            status, fields, _ = await visitor.final()
            assert (status, await visitor.reader.readexactly(5)) == (200, b"hello"), line


@case("a refused upgrade is an ordinary answer, and the connection goes on", ENTRIES)
async def refused_upgrade(t):
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: because\r\n\r\nno"
    async with answering(t, "upgrade", always(refusal)) as world, visiting(world.http) as visitor:
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        for fields in (
            ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key],
            ["Connection: Upgrade", "Upgrade: something/1"],
            [],
        ):
            visitor.ask("GET / HTTP/1.1", fields)
            status, said, _ = await visitor.final()
            assert status == 403 and said[b"x-why"] == b"because" and await visitor.reader.readexactly(2) == b"no", said


@case("HTTP/1.0 visitors: no chunks, an end by closing, keep-alive where there is a length", ENTRIES)
async def old(t):
    async with visiting(t.world.http) as visitor:
        visitor.ask("GET /bytes?n=100000&framing=chunked HTTP/1.0")
        status, fields, _ = await visitor.final()
        body = await visitor.rest()
        assert status == 200 and b"transfer-encoding" not in fields and len(body) == 100_000, (fields, len(body))
    async with visiting(t.world.http) as visitor:
        for last in (False, True):
            visitor.ask("GET /hello HTTP/1.0", [] if last else ["Connection: keep-alive"])
            status, fields, _ = await visitor.final()
            assert (status, await visitor.reader.readexactly(6)) == (200, b"hello\n"), fields
            assert (fields.get(b"connection") == b"keep-alive") != last, fields
        assert await visitor.rest() == b"", "the connection goes on"
    async with visiting(t.world.http) as visitor:
        # A 1.0 client has no 100 Continue (RFC 9110 10.1.1).
        visitor.ask("POST /digest HTTP/1.0", ["Content-Length: 5", "Expect: 100-continue"], b"hello")
        status, _, interim = await visitor.final()
        assert (status, interim) == (200, 0), (status, interim)


@case("OPTIONS *, and fields that are nobody's business on the way", ENTRIES)
async def untouched(t):
    fields = [
        ("if-range", 'W/"x", y'), ("if-match", '"a", "b"'), ("if-modified-since", "Sat, 29 Oct 1994 19:43:31 GMT"),
        ("range", "bytes=0-1,5-"), ("x-twice", "1"), ("accept-encoding", "gzip;q=0, *"), ("x-twice", "2"), ("via", "1.1 a"),
        ("cache-control", "no-cache, max-age=0"), ("authorization", "Basic eA=="), ("max-forwards", "7"), ("x-empty", ""),
    ]
    async with Recorder() as recorder:
        world = await t.alone(f"untouched-{t.mode}", services=[Service("http", recorder.port)])
        async with visiting(world.http) as visitor:
            visitor.ask("OPTIONS * HTTP/1.1", [f"{name}: {value}" for name, value in fields])
            assert (await visitor.final())[0] == 200
        connection = await Http2.open(int(world.http.split(":")[1]))
        asked = request(b"*", b"OPTIONS") + [(n.encode(), v.encode()) for n, v in fields]
        connection.send(headers(1, asked))
        assert (await connection.over(1, 5)).status == 200
        await connection.close()
        assert len(recorder.requests) == 2 and not recorder.violations(), recorder.violations()
        for seen in recorder.requests:
            assert (seen.method, seen.target) == (b"OPTIONS", b"*"), seen
            got = [(n.decode(), v.decode()) for n, v in seen.headers if n.decode() in dict(fields)]
            # In their order, where those of one name stand together.
            wanted = [(n, v) for name in dict(fields) for n, v in fields if n == name]
            assert got == wanted, f"{got}\n{wanted}"


@case("a final answer instead of 100 Continue", ENTRIES)
async def instead(t):
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
    async with answering(t, "instead", always(refusal)) as world, visiting(world.http) as visitor:
        visitor.ask("POST / HTTP/1.1", ["Content-Length: 100000000", "Expect: 100-continue"])
        status, _, interim = await visitor.final()
        assert (status, interim) == (401, 0), (status, interim)
        assert await visitor.rest() == b"no"


async def deaf(reader, writer):
    """A backend that never reads."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    writer.close()


class HalfDeaf:
    """A backend by HTTP/2 that answers with a head, then says no more and makes no room for a body."""

    def __init__(self):
        self.reset = asyncio.Event()

    async def __call__(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await reader.readexactly(len(frames.PREFACE))
            writer.write(frames.frame(frames.SETTINGS, 0, 0))
            while True:
                head = await reader.readexactly(9)
                kind, number = head[3], int.from_bytes(head[5:], "big")
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                if kind == frames.SETTINGS and not head[4] & frames.ACK:
                    writer.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
                elif kind == frames.HEADERS:
                    # :status 200, from the table.
                    writer.write(frames.frame(frames.HEADERS, frames.END_HEADERS, number, b"\x88"))
                elif kind == frames.RST_STREAM:
                    self.reset.set()
        writer.close()


async def pushed(writer, chunk: bytes, most: int) -> int:
    """Bytes of an upload that were taken before it stopped."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < most:
            writer.write(chunk)
            sent += len(chunk)
            await asyncio.wait_for(writer.drain(), 0.5)
    return sent


@case("a visitor who leaves a backend that has stopped reading leaves nothing", ENTRIES, seconds=40)
async def stopped_reading(t):
    half_deaf = HalfDeaf()
    for name, answer, scheme in (("half deaf", half_deaf, "h2c"), ("deaf", deaf, "")):
        async with answering(t, name.replace(" ", "-"), answer, scheme) as world:
            visitor = await Visitor.of(world.http)
            visitor.ask("POST / HTTP/1.1", ["Transfer-Encoding: chunked"])
            sent = await pushed(visitor.writer, b"8000\r\n" + bytes(0x8000) + b"\r\n", 32 << 20)
            assert 0 < sent < 32 << 20, f"{sent} bytes went to a backend that does not read"
            # By a reset. A polite end would stand behind what is unread, where nobody can see it.
            reset = struct.pack("ii", 1, 0)
            visitor.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            visitor.writer.transport.abort()
            await emptied(t, world, f"{name}, by HTTP/1.1", half_deaf)
            connection = await Http2.open(int(world.http.split(":")[1]))
            await connection.until(lambda: connection.greeted, 5)
            connection.send(headers(1, request(b"/", b"POST"), False))
            # No more than the window: what is beyond it would end the connection.
            await pushed(connection.writer, frames.data(1, bytes(16_000), False), 240_000)
            if answer is half_deaf:
                await connection.until(lambda: connection.streams.get(1, frames.Stream()).status, 5)
            await connection.close()
            await emptied(t, world, f"{name}, by HTTP/2", half_deaf)


async def emptied(t, world, what: str, half_deaf: HalfDeaf) -> None:
    """Waits until nothing is left, and the backend knows; notes how long that took."""
    began = time.monotonic()
    await world.pair.clean(5)
    if what.startswith("half"):
        await asyncio.wait_for(half_deaf.reset.wait(), 5)
        half_deaf.reset.clear()
    t.note(f"{what}: {time.monotonic() - began:.2f} s")
