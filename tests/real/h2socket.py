"""A WebSocket by HTTP/2 (RFC 8441), made of two libraries: `h2` for the streams of one
connection, `wsproto` for the frames on each."""

import asyncio
import collections
import contextlib

import h2.config
import h2.connection
import h2.events
import h2.settings
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Message, Ping
from wsproto.extensions import PerMessageDeflate

CONNECT = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL


class Line:
    """One connection and its streams."""

    def __init__(self, reader, writer, authority: str):
        self.reader, self.writer, self.authority = reader, writer, authority
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.streams: dict[int, asyncio.Queue] = {}
        self.room = asyncio.Event()
        self.told = asyncio.Event()
        self.reading = None

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, address: str):
        """A connection, whose settings have come, until the end of the block."""
        host, _, port = address.partition(":")
        line = cls(*await asyncio.open_connection(host, int(port)), address)
        line.h2.initiate_connection()
        line.flush()
        line.reading = asyncio.ensure_future(line.read())
        try:
            await asyncio.wait_for(line.told.wait(), 5)
            yield line
        finally:
            line.reading.cancel()
            line.writer.close()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def read(self) -> None:
        """Hands each event to its stream; all streams end with the connection."""
        with contextlib.suppress(OSError):
            while data := await self.reader.read(65_536):
                for event in self.h2.receive_data(data):
                    if isinstance(event, h2.events.RemoteSettingsChanged):
                        self.told.set()
                    if isinstance(event, h2.events.WindowUpdated):
                        self.room.set()
                    if queue := self.streams.get(getattr(event, "stream_id", None)):
                        queue.put_nowait(event)
                self.flush()
        for queue in self.streams.values():
            queue.put_nowait(None)

    async def ask(self, headers) -> tuple[int, list]:
        """Opens a stream with this head; its number and the head of its answer."""
        number = self.h2.get_next_available_stream_id()
        self.streams[number] = asyncio.Queue()
        self.h2.send_headers(number, headers)
        self.flush()
        event = await asyncio.wait_for(self.streams[number].get(), 10)
        assert isinstance(event, h2.events.ResponseReceived), event
        return number, event.headers

    async def connect(self, path: str, *more, protocol: str = "websocket", version: str = "13"):
        """The head of the answer to an extended CONNECT, and a socket on its stream."""
        offered = PerMessageDeflate()
        number, head = await self.ask([
            (":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", path),
            (":authority", self.authority), ("sec-websocket-version", version),
            ("sec-websocket-extensions", f"permessage-deflate; {offered.offer()}"), *more,
        ])
        head = dict(head)
        extensions = []
        if agreed := head.get("sec-websocket-extensions"):
            offered.finalize(agreed)
            extensions.append(offered)
        return head, Socket(self, number, Connection(ConnectionType.CLIENT, extensions))


class Socket:
    """Frames on one stream."""

    def __init__(self, line: Line, number: int, frames: Connection):
        self.line, self.number, self.frames = line, number, frames
        self.come, self.ended = collections.deque(), False

    async def send(self, event) -> None:
        """Sends a message, ping or close, as the windows allow."""
        data, line = self.frames.send(event), self.line
        while data:
            line.room.clear()
            size = min(line.h2.local_flow_control_window(self.number), line.h2.max_outbound_frame_size, len(data))
            if size:
                line.h2.send_data(self.number, data[:size])
                line.flush()
                data = data[size:]
            else:
                await asyncio.wait_for(line.room.wait(), 10)

    async def event(self):
        """What comes next: a part of a message, a pong or a close frame; None at the end of
        the stream. Pings are answered."""
        while not self.come and not self.ended:
            event = await self.line.streams[self.number].get()
            if isinstance(event, h2.events.DataReceived):
                self.frames.receive_data(event.data)
                self.line.h2.acknowledge_received_data(event.flow_controlled_length, self.number)
                self.line.flush()
                self.come.extend(self.frames.events())
            elif event is None or isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self.ended = True
        if not self.come:
            return None
        event = self.come.popleft()
        if isinstance(event, Ping):
            await self.send(event.response())
            return await self.event()
        return event

    async def message(self):
        """The next whole message, or the close frame; None when the stream ends without."""
        parts = []
        while event := await self.event():
            if isinstance(event, CloseConnection):
                return event
            if isinstance(event, Message):
                parts.append(event.data)
                if event.message_finished:
                    return type(event.data)().join(parts)
        return None

    async def close(self, code: int, reason: str = ""):
        """Closes, and returns the other side's close frame."""
        await self.send(CloseConnection(code, reason))
        end = await asyncio.wait_for(self.message(), 5)
        self.line.h2.end_stream(self.number)
        self.line.flush()
        return end

    def cut(self) -> None:
        """Resets the stream."""
        self.line.h2.reset_stream(self.number, 8)
        self.line.flush()
