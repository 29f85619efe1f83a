"""A backend that trusts nobody: it keeps every byte and reads requests by the letter of RFC 9112.

It takes exactly one framing for each request and no leniency at all, so whatever a proxy in
front of it has left in doubt shows as a violation or as a request that nobody meant.
"""

import asyncio
import re
from dataclasses import dataclass, field

LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[\x21-\x7e]*|\*) HTTP/1\.1")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e\x80-\xff\t ]*)")
SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
DIGITS = re.compile(rb"[0-9]{1,19}")


class Violation(Exception):
    """What no strict reader of HTTP/1.1 accepts."""


@dataclass
class Seen:
    """One request, as it was understood."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    # Whether its end came.
    whole: bool = False

    def all(self, name: bytes) -> list[bytes]:
        """Every value of one field."""
        return [value for n, value in self.headers if n.lower() == name]


@dataclass
class Connection:
    """All that came by one connection."""

    wire: bytes = b""
    requests: list[Seen] = field(default_factory=list)
    violation: str = ""
    ended: bool = False


class Reader:
    """Takes lines and bytes from a stream, and keeps them."""

    def __init__(self, reader: asyncio.StreamReader, connection: Connection):
        self.reader, self.connection = reader, connection

    async def exactly(self, count: int) -> bytes:
        """So many bytes; an `IncompleteReadError` where the stream ends before."""
        try:
            piece = await self.reader.readexactly(count)
        except asyncio.IncompleteReadError as error:
            self.connection.wire += error.partial
            raise
        self.connection.wire += piece
        return piece

    async def line(self) -> bytes:
        """A line, which ends with CR and LF."""
        line = b""
        while not line.endswith(b"\n"):
            line += await self.exactly(1)
        if not line.endswith(b"\r\n"):
            raise Violation(f"a line ends without CR: {line!r}")
        return line[:-2]

    async def fields(self) -> list[tuple[bytes, bytes]]:
        """Header or trailer fields and the empty line after them."""
        found = []
        while line := await self.line():
            match = FIELD.fullmatch(line)
            if not match:
                raise Violation(f"not a field: {line!r}")
            found.append((match[1], match[2].strip(b" \t")))
        return found

    async def request(self) -> Seen | None:
        """The next request; nothing where the connection ends between two."""
        try:
            first = await self.exactly(1)
        except asyncio.IncompleteReadError:
            return None
        line = first + await self.line()
        match = LINE.fullmatch(line)
        if not match:
            raise Violation(f"not a request line: {line!r}")
        seen = Seen(match[1], match[2], await self.fields())
        self.connection.requests.append(seen)
        if len(seen.all(b"host")) != 1:
            raise Violation(f"{len(seen.all(b'host'))} Host fields")
        lengths, codings = seen.all(b"content-length"), seen.all(b"transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise Violation(f"more than one framing: {lengths} {codings}")
        if codings and codings != [b"chunked"]:
            raise Violation(f"a transfer coding: {codings}")
        if lengths and not DIGITS.fullmatch(lengths[0]):
            raise Violation(f"a length: {lengths}")
        if codings:
            await self.chunks(seen)
        elif lengths:
            seen.body = await self.exactly(int(lengths[0]))
        seen.whole = True
        return seen

    async def chunks(self, seen: Seen) -> None:
        """A chunked body, without extensions: nobody on the way has any to add."""
        while True:
            size = await self.line()
            if not SIZE.fullmatch(size):
                raise Violation(f"a chunk's size: {size!r}")
            if not int(size, 16):
                break
            seen.body += await self.exactly(int(size, 16))
            if await self.exactly(2) != b"\r\n":
                raise Violation("a chunk does not end with CRLF")
        seen.trailers = await self.fields()


class Recorder:
    """Listens on a port of its own, answers each request that it understands with 200."""

    def __init__(self):
        self.connections: list[Connection] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task] = set()

    async def __aenter__(self) -> "Recorder":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, stream, writer) -> None:
        self._tasks.add(asyncio.current_task())
        self.connections.append(connection := Connection())
        reader = Reader(stream, connection)
        try:
            while seen := await reader.request():
                body = b"" if seen.method == b"HEAD" else b"seen"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)
                await writer.drain()
        except Violation as violation:
            connection.violation = str(violation)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # Cut in the middle, and visibly so; or the case is over.
            pass
        finally:
            connection.ended = True
            writer.close()
            self._tasks.discard(asyncio.current_task())

    @property
    def requests(self) -> list[Seen]:
        """Every request so far, of all connections."""
        return [seen for connection in self.connections for seen in connection.requests]

    def violations(self) -> list[str]:
        """What could not be read strictly."""
        return [c.violation for c in self.connections if c.violation]
