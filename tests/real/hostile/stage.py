"""A node under test with a hostile peer, and an innocent one where there is room for it."""

import asyncio
import hashlib
import json

from hostile.peer import Dialler, Listener, Peer
from hostile.visitors import by_http
from hostile import messages as m
from process import OUT, Process, until
from strait import BIN, Pair

# Who may dial a server, by name.
TOKENS = {name: f"st_{name:x<43}" for name in ("hostile", "friend")}
MAX_REQUESTS = 64
ANY = "127.0.0.1:0"

CONFIG = """
[{role}]
{tunnel}
[[services]]
name = "own"
backend = {backend}
protocols = ["http", "websocket"]
path = "/own"
[limits]
max_requests = {limit}
"""

TOKEN = """
[[server.tokens]]
name = "{name}"
sha256 = "{sha256}"
"""

CLIENT = """
server = "http://127.0.0.1:{tunnel}"
token = "{token}"
id = "under-test"
"""


class Node(Pair):
    """The one node under test: half of a pair, made from a configuration file. It takes free
    ports by itself and says which: hundreds of nodes are started, and a port that was free a
    moment ago is soon somebody else's."""

    def __init__(self, name: str, role: str, backend: int, server: int = 0):
        super().__init__(name)
        self.role, self.backend, self.server = role, backend, server

    async def begin(self) -> None:
        """Starts it and learns its ports."""
        await self.start(self.role)

        def started():
            lines = self.process.log.read_text().splitlines()
            assert self.process.alive, self.process.tail()
            return next((json.loads(line) for line in lines if '"message":"started"' in line), None)

        said = await until(f"{self.name} has started", started, 10, 0.005)
        ports = {name: int(said.get(name, ":0").rpartition(":")[2]) for name in ("entries", "admin", "tunnel")}
        self.entry[self.role], self.admin[self.role], self.tunnel = ports["entries"], ports["admin"], ports["tunnel"]

    def command(self, side: str) -> list[str]:
        if self.role == "server":
            tokens = [TOKEN.format(name=n, sha256=hashlib.sha256(t.encode()).hexdigest()) for n, t in TOKENS.items()]
            tunnel = "".join(tokens)
        else:
            tunnel = CLIENT.format(tunnel=self.server, token=TOKENS["hostile"])
        file = OUT / f"{self.name}.toml"
        file.write_text(CONFIG.format(role=self.role, tunnel=tunnel, backend=self.backend, limit=MAX_REQUESTS))
        listen = ["--listen", ANY, "--tunnel", ANY, "--no-tls"] if side == "server" else ["--entry", ANY]
        return [str(BIN), side, "--config", str(file), "--admin", ANY, "--log", "json", *listen]

    @property
    def process(self) -> Process:
        return self.node[self.role]

    async def figures(self) -> dict:
        return await self.status(self.role)

    async def empty(self) -> None:
        """Waits until it holds nothing of any request."""

        async def check():
            status = await self.figures()
            held = [status["totals"]["open"], status["totals"]["budget_used"]]
            held += [session[k] for session in status["sessions"] for k in ("open_ours", "open_theirs", "buffered")]
            return not any(held)

        await until(f"{self.name} holds nothing", check, 3, 0.02)


class Backend:
    """Answers everything, keeps the heads of what it was asked, and counts connections. A
    request for a path that holds `wait` gets no answer."""

    def __init__(self):
        self.connections, self.heads = 0, []

    async def start(self) -> "Backend":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.heads.append(head)
                if "wait" not in head.split("\r\n")[0]:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nown\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def stop(self) -> None:
        self._server.close()


class Stage:
    """Where one row plays. The hostile peer offers the service `hostile`; at a server an
    innocent peer offers `friend` over a session of its own."""

    def __init__(self, name: str, role: str):
        self.name, self.role = name, role
        self.backend = Backend()
        self.friend: Peer | None = None
        self.line: Dialler | Listener | None = None
        self.node: Node | None = None

    async def start(self) -> "Stage":
        await self.backend.start()
        if self.role == "server":
            self.node = Node(self.name, "server", self.backend.port)
            await self.node.begin()
            self.line = Dialler(self.node.tunnel)
            self.friend = await self.line.dial(TOKENS["friend"]).greet(["friend"], client_id="friend")
        else:
            self.line = await Listener().start()
            self.node = Node(self.name, "client", self.backend.port, self.line.port)
            await self.node.begin()
        return self

    @property
    def port(self) -> int:
        """Where visitors come in."""
        return self.node.entry[self.role]

    async def session(self) -> Peer:
        """A new session of the hostile peer that has said nothing yet."""
        if self.role == "server":
            return self.line.dial(TOKENS["hostile"])
        # The client waits longer after each session that did not last.
        return await self.line.accept(15)

    async def greeted(self, **hello) -> Peer:
        """A new session of the hostile peer after a proper beginning."""
        peer = await (await self.session()).greet(["hostile"], **hello)
        await peer.first("hello")
        return peer

    async def others_are_served(self) -> None:
        """A visitor of the innocent peer gets its answer."""
        if not self.friend:
            return
        visitor = asyncio.ensure_future(by_http(self.port, "/friend/visit"))
        asked = await self.friend.opened("/friend/visit")
        self.friend.received.remove(asked)
        await self.friend.send(m.answer(asked.number, body=b"friend\n"))
        shown = await asyncio.wait_for(visitor, 3)
        assert (shown.what, shown.body) == (200, b"friend\n"), f"the innocent peer's visitor got {shown}"

    async def healthy(self) -> None:
        """The node runs, holds nothing and has said nothing of a panic."""
        await self.others_are_served()
        await self.node.empty()
        assert self.node.process.alive, f"the node ended: {self.node.process.tail()}"
        assert "panicked" not in self.node.process.log.read_text(), self.node.process.tail()

    async def stop(self) -> None:
        if self.line:
            await self.line.stop()
        if self.node and self.node.node:
            await self.node.process.stop()
        await self.backend.stop()


async def serve_one(stage: Stage, peer: Peer, path: str) -> None:
    """A visitor who is answered properly by the hostile peer."""
    visitor = asyncio.ensure_future(by_http(stage.port, path))
    answering = asyncio.ensure_future(answer_one(peer, path))
    await asyncio.wait([visitor, answering], timeout=6, return_when=asyncio.FIRST_COMPLETED)
    if visitor.done() and not peer.of("http_request"):
        answering.cancel()
        raise AssertionError(f"an innocent visitor got {visitor.result()} before the peer was asked: {peer.end}")
    await answering
    shown = await asyncio.wait_for(visitor, 3)
    assert (shown.what, shown.body) == (200, b"fine\n"), f"an innocent visitor got {shown}"


async def answer_one(peer: Peer, path: str) -> None:
    """Answers the request for a path properly."""
    await peer.send(m.answer((await peer.opened(path)).number, body=b"fine\n"))
