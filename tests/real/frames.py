"""HTTP/2 frame by frame, without any of the checks that a library would make."""

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM = ACK = 0x1
END_HEADERS, PADDED = 0x4, 0x8
INITIAL_WINDOW_SIZE = 4

Fields = list[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame (RFC 9113 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def length(size: int) -> bytes:
    """The length of a string in a header block (RFC 7541 5.1, without Huffman)."""
    if size < 127:
        return bytes([size])
    size, octets = size - 127, b"\x7f"
    while size >= 128:
        size, octets = size >> 7, octets + bytes([size & 127 | 128])
    return octets + bytes([size])


def block(fields: Fields) -> bytes:
    """A header block of literals that are not indexed: any bytes, in any order."""
    return b"".join(b"\x00" + length(len(n)) + n + length(len(v)) + v for n, v in fields)


def headers(stream: int, fields: Fields, end: bool = True) -> bytes:
    """A whole head."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields))


def data(stream: int, payload: bytes, end: bool = True) -> bytes:
    """A piece of a body."""
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def request(path: bytes, method: bytes = b"GET", authority: bytes = b"a") -> Fields:
    """The pseudo-fields of a plain request."""
    return [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", authority)]


@dataclass
class Stream:
    """What came back on one stream."""

    status: int = 0
    body: bytes = b""
    ended: bool = False
    reset: int | None = None


@dataclass
class Http2:
    """A connection; a task reads whatever comes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    streams: dict[int, Stream] = field(default_factory=dict)
    goaway: int | None = None
    closed: bool = False
    # Whether the other side has said how large its windows are.
    greeted: bool = False
    # Acknowledge what wants to be acknowledged.
    polite: bool = True

    @classmethod
    async def open(cls, port: int, settings: bytes = b"", polite: bool = True) -> "Http2":
        """Connects and says hello."""
        it = cls(*await asyncio.open_connection("127.0.0.1", port), polite=polite)
        it.decoder = hpack.Decoder()
        it.changed = asyncio.Event()
        it.task = asyncio.ensure_future(it._read())
        it.writer.write(PREFACE + frame(SETTINGS, 0, 0, settings))
        return it

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
                self._take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
                self.changed.set()
        self.closed = True
        self.changed.set()

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        stream = self.streams.setdefault(number, Stream()) if number else None
        if kind == HEADERS:
            fields = dict(self.decoder.decode(payload, raw=True))
            status = int(fields.get(b":status", 0))
            if status >= 200:
                stream.status = status
        elif kind == DATA:
            stream.body += payload
            if self.polite and payload:
                more = struct.pack(">I", len(payload))
                self.writer.write(frame(WINDOW_UPDATE, 0, 0, more) + frame(WINDOW_UPDATE, 0, number, more))
        elif kind == RST_STREAM:
            stream.reset = int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")
        elif kind in (SETTINGS, PING) and not flags & ACK and self.polite:
            self.greeted |= kind == SETTINGS
            self.writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            stream.ended = True

    def send(self, octets: bytes) -> None:
        """Writes frames."""
        self.writer.write(octets)

    async def until(self, check, seconds: float) -> None:
        """Waits until `check()` or the end of the connection; a `TimeoutError` after `seconds`."""
        async with asyncio.timeout(seconds):
            while not check() and not self.closed:
                self.changed.clear()
                await self.changed.wait()

    async def over(self, number: int, seconds: float) -> Stream:
        """Waits until a stream has ended, by an answer, a reset, a GOAWAY or with the connection."""
        stream = self.streams.setdefault(number, Stream())
        # A GOAWAY without error lets what was begun go on.
        await self.until(lambda: stream.ended or stream.reset is not None or self.goaway, seconds)
        return stream

    async def close(self) -> None:
        """Leaves."""
        self.writer.close()
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
