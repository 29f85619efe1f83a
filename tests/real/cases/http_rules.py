"""Rules of HTTP that curl does not try, byte for byte: half-closed visitors, interim answers, HTTP/1.0."""

import asyncio
import contextlib
import time

from case import ENTRIES, case
from process import until
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
