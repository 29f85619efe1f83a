"""One end of a tunnel, played by hand: the same class dials a server and waits for a client."""

import asyncio
import contextlib
from dataclasses import dataclass

import grpc

from hostile import messages as m
from process import until

PATH = "/strait.v1.Tunnel/Proxy"
CHANNEL = [
    ("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20),
    ("grpc.max_metadata_size", 4 << 20), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0),
]
# What grpcio raises when a call is over.
OVER = (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError)


@dataclass
class End:
    """How the node ended a session."""

    code: str  # the call's status, which only a server can say; empty if unknown
    text: str


class Peer:
    """One end of one session. Everything that comes is kept; pings are answered."""

    def __init__(self, call, dialled: bool):
        self._call, self.dialled = call, dialled
        self.received: list = []
        self.end: End | None = None
        # From its Hello on: grpcio forgets how a call ended when it is written to afterwards.
        self.answers_pings = False
        self._next = 1 if dialled else 2
        self._nonce = 1000
        self._writing, self._may_read = asyncio.Lock(), asyncio.Event()
        self._may_read.set()
        self._reading = asyncio.ensure_future(self._read())

    # --- what comes ---------------------------------------------------------------

    async def _read(self) -> None:
        with contextlib.suppress(*OVER, asyncio.CancelledError):
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self.received.append(message)
                kind = message.WhichOneof("payload")
                if self.answers_pings and kind == "control" and message.control.HasField("ping"):
                    await self.send(m.pong(message.control.ping.nonce))
                await self._may_read.wait()
        self.end = End(*await self._status())

    async def _status(self) -> tuple[str, str]:
        said = next((g.message for g in reversed(self.goaways()) if g.message), "")
        if not self.dialled:
            return "", said
        code, details = (await self._call.code()).name, await self._call.details() or said
        # So grpcio calls a write after the end, and forgets what the node had said.
        return ("", said) if details == "Internal error from Core" else (code, details)

    def of(self, kind: str, no: int | None = None) -> list:
        """The messages of one kind that have come, of one request if `no` says so."""
        right = [r for r in self.received if r.WhichOneof("payload") == kind]
        return [r for r in right if no is None or r.number == no]

    def goaways(self) -> list:
        return [r.control.goaway for r in self.of("control") if r.control.HasField("goaway")]

    def resets(self) -> list[tuple[int, str]]:
        """Number and reason of each reset that has come."""
        return [(r.number, m.pb.Reason.Name(r.reset.reason).removeprefix("REASON_")) for r in self.of("reset")]

    async def first(self, kind: str, no: int | None = None, seconds: float = 5):
        """The first message of one kind, waited for."""
        await until(f"the peer gets {kind}", lambda: self.of(kind, no) or self.end, seconds, 0.005)
        assert self.of(kind, no), f"the session ended without {kind}: {self.end}"
        return self.of(kind, no)[0]

    async def opened(self, path: str):
        """The opening of the node's request for a path."""
        kinds = ("http_request", "grpc_request", "ws_request")

        def found():
            return [r for kind in kinds for r in self.of(kind) if path.encode() in getattr(r, kind).path]

        return (await until(f"the peer is asked for {path}", found, 5, 0.005))[0]

    async def ended(self, seconds: float = 5) -> End:
        """How the node ended the session, waited for."""
        return await until("the node ends the session", lambda: self.end, seconds, 0.005)

    # --- what goes ----------------------------------------------------------------

    def number(self) -> int:
        """A new number of this side."""
        self._next += 2
        return self._next - 2

    async def send(self, *messages) -> None:
        """Sends messages, or bytes in their place. What cannot be sent any more is dropped."""
        for message in messages:
            raw = message if isinstance(message, bytes) else message.SerializeToString()
            async with self._writing:
                with contextlib.suppress(*OVER):
                    await self._call.write(raw)

    async def settle(self) -> None:
        """Waits until the node has taken everything that was sent, or has ended the session."""
        self._nonce += 1
        nonce = self._nonce
        await self.send(m.ping(nonce))

        def answered():
            pongs = [r.control.pong.nonce for r in self.of("control") if r.control.HasField("pong")]
            return nonce in pongs or self.end

        await until("the node answers a ping", answered, 5, 0.005)

    async def greet(self, services=(), **changes) -> "Peer":
        """Says Hello, offers services and waits until both are taken."""
        self.answers_pings = True
        await self.send(m.hello(**changes), m.announcement(services))
        await until("the node takes the services", lambda: self.refused() is not None or self.end, 5, 0.005)
        assert not self.end, self.end
        return self

    def refused(self) -> list | None:
        """Services of the last announcement that the node refused; nothing before its answer."""
        answers = [r.config_sync for r in self.of("config_sync") if r.config_sync.is_answer]
        return list(answers[-1].refused) if answers else None

    def stop_reading(self) -> None:
        """Reads nothing any more, after at most one message."""
        self._may_read.clear()

    async def bye(self) -> None:
        """Ends the session without a word."""
        self._may_read.set()
        self._call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading


class Dialler:
    """Dials a server, over a connection of its own for each session."""

    def __init__(self, port: int):
        self._port, self._channels = port, []

    def dial(self, token: str | None) -> Peer:
        """A new session for the holder of a token."""
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=CHANNEL)
        self._channels.append(channel)
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        return Peer(channel.stream_stream(PATH, None, m.pb.TunnelMessage.FromString)(metadata=metadata), True)

    async def stop(self) -> None:
        for channel in self._channels:
            await channel.close()


class Listener:
    """Waits for a client's calls."""

    def __init__(self):
        self.accepted: asyncio.Queue[Peer] = asyncio.Queue()
        self._server = grpc.aio.server(options=CHANNEL)
        handler = grpc.stream_stream_rpc_method_handler(self._take, m.pb.TunnelMessage.FromString, None)
        service = grpc.method_handlers_generic_handler("strait.v1.Tunnel", {"Proxy": handler})
        self._server.add_generic_rpc_handlers((service,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    async def start(self) -> "Listener":
        await self._server.start()
        return self

    async def _take(self, _, context) -> None:
        call = _Taken(context)
        self.accepted.put_nowait(Peer(call, False))
        await call.over.wait()

    async def accept(self, seconds: float = 5) -> Peer:
        """The next session of the client."""
        return await asyncio.wait_for(self.accepted.get(), seconds)

    async def stop(self) -> None:
        await self._server.stop(0)


class _Taken:
    """A call that was taken, with the face of one that was made."""

    def __init__(self, context):
        self._context, self.over = context, asyncio.Event()

    async def read(self):
        message = await self._context.read()
        if message is grpc.aio.EOF:
            self.over.set()
        return message

    async def write(self, raw: bytes) -> None:
        if not self.over.is_set():
            await self._context.write(raw)

    def cancel(self) -> None:
        self.over.set()
