"""The program under test: where it is, how it is started, what its admin address says.

Everything the tests know about the command line is in this file.
"""

import asyncio
import json
import os
import pathlib
import signal
from dataclasses import dataclass, field

from process import OUT, ROOT, Process, free_port, until

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
BIN = pathlib.Path(os.environ.get("STRAIT_BIN") or TARGET / "release" / "strait")
LOAD = pathlib.Path(os.environ.get("TESTKIT_LOAD") or BIN.parent / "testkit-load")
TOKEN = "st_" + "t" * 43


@dataclass
class Service:
    """Something a node offers to its peer."""

    kind: str
    port: int
    host: str = ""
    path: str = ""

    def words(self) -> list[str]:
        """As it stands on the command line."""
        words = [self.kind, str(self.port)]
        if self.host:
            words += ["--host", self.host]
        if self.path:
            words += ["--path", self.path]
        return words


@dataclass
class Pair:
    """A server and a client, joined by one tunnel or several."""

    name: str
    behind_client: list[Service] = field(default_factory=list)
    behind_server: list[Service] = field(default_factory=list)
    server_flags: list[str] = field(default_factory=list)
    client_flags: list[str] = field(default_factory=list)
    token: str = TOKEN
    tls: bool = False
    # At once; both sides have a thread for each.
    tunnels: int = 1
    # Where the client dials, if that is not the server's own port.
    dial: int = 0
    # Text of a configuration file beside the flags: limits and timeouts.
    settings: str = ""
    client_settings: str = ""
    # Of both entries: chain and key (PEM), whose pages may call by gRPC-Web, and further keys in the file.
    certificate: tuple[pathlib.Path, pathlib.Path] | None = None
    cors_origins: list[str] = field(default_factory=list)
    entry_keys: dict[str, object] = field(default_factory=dict)

    def __post_init__(self):
        self.entry = {"server": free_port(), "client": free_port()}
        self.admin = {"server": free_port(), "client": free_port()}
        self.tunnel = free_port()
        self.node: dict[str, Process] = {}
        self.environment = {"STRAIT_STATE": str(OUT / f"{self.name}-state"), "NO_COLOR": "1"}

    def command(self, side: str) -> list[str]:
        """The command line of one side."""
        common = ["--admin", f"127.0.0.1:{self.admin[side]}", "--log", "json"]
        entry = ["--listen" if side == "server" else "--entry", f"127.0.0.1:{self.entry[side]}"]
        settings, keys = self.settings, dict(self.entry_keys)
        if side == "client":
            settings += self.client_settings
        if self.certificate:
            cert, key = map(str, self.certificate)
            keys |= {"cert": cert, "key": key, "cors_origins": self.cors_origins}
        if keys:
            # Entries of the command line would replace those of the file.
            keys["listen"] = entry.pop()
            # Texts, truths and lists of them are the same in TOML.
            settings += "[[entries]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items())
            entry = []
        if settings:
            file = OUT / f"{self.name}-{side}.toml"
            file.write_text(f"[{side}]\n{settings}")
            common += ["--config", str(file)]
        if self.tunnels > 1:
            common += ["--threads", str(self.tunnels)]
        if side == "server":
            words = [*entry, "--tunnel", f"127.0.0.1:{self.tunnel}"]
            words += ["--token", self.token] + ([] if self.tls else ["--no-tls"])
            words += common + self.server_flags
            for service in self.behind_server:
                words += ["--expose", *service.words()]
        else:
            scheme = "https" if self.tls else "http"
            words = ["--server", f"{scheme}://127.0.0.1:{self.dial or self.tunnel}", "--token", self.token]
            words += ["--tunnels", str(self.tunnels)] if self.tunnels > 1 else []
            words += entry + common + self.client_flags
            words += [word for service in self.behind_client for word in service.words()]
        return [str(BIN), side, *words]

    async def start(self, side: str) -> Process:
        """Starts one side; its access log is out/NAME-SIDE.out."""
        self.node[side] = await Process.start(
            f"{self.name}-{side}", *self.command(side), env=self.environment, split=True
        )
        return self.node[side]

    async def up(self, seconds: float = 10) -> "Pair":
        """Starts both sides and waits until the tunnel stands."""
        for side in ("server", "client"):
            await self.start(side)
        await self.joined(seconds)
        return self

    async def joined(self, seconds: float = 10) -> None:
        """Waits until both sides know of the tunnels between them."""
        for side in ("server", "client"):
            await self.ready(side, seconds)

            async def check(side=side):
                return len((await self.status(side))["sessions"]) == self.tunnels

            await until(f"the {side} has {self.tunnels} tunnels", check, seconds)

    async def ready(self, side: str, seconds: float = 10) -> None:
        """Waits until one side says that it is ready."""
        node = self.node[side]

        async def check():
            if not node.alive:
                raise AssertionError(f"{node.name} ended with {node.process.returncode}:\n{node.tail()}")
            return await self.get(side, "/readyz") is not None

        await until(f"{node.name} is ready", check, seconds)

    async def down(self) -> None:
        """Ends both sides."""
        for side in ("client", "server"):
            if side in self.node:
                await self.node[side].stop()

    def kill(self, side: str) -> None:
        """kill -9."""
        self.node[side].signal(signal.SIGKILL)

    async def get(self, side: str, path: str) -> str | None:
        """A page of the admin address; None unless it answers 200."""
        port = self.admin[side]
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return None
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            answer = await asyncio.wait_for(reader.read(), 5)
        except (OSError, TimeoutError):
            return None
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0] + b" ":
            return None
        if b"transfer-encoding: chunked" in head.lower():
            body = unchunk(body)
        return body.decode("utf-8", "replace")

    async def status(self, side: str) -> dict:
        """/status of one side."""
        text = await self.get(side, "/status")
        assert text is not None, f"the {side} has no /status"
        return json.loads(text)

    async def metrics(self, side: str) -> dict[str, float]:
        """/metrics of one side: the text of each sample's name and labels, and its value."""
        text = await self.get(side, "/metrics")
        assert text is not None, f"the {side} has no /metrics"
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    async def clean(self, seconds: float = 3) -> None:
        """Waits until neither side holds anything: no request, no byte, no credit given."""
        for side in ("server", "client"):
            left: dict = {}

            async def check(side=side, left=left):
                left.clear()
                left.update(held(await self.status(side)))
                return not any(left.values())

            try:
                await until("empty", check, seconds, 0.05)
            except AssertionError:
                raise AssertionError(f"the {side} still holds {left}") from None

    def lines(self, side: str) -> list[dict]:
        """The access log of one side."""
        text = (OUT / f"{self.name}-{side}.out").read_text(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def tail(self) -> str:
        """The ends of both logs."""
        return "\n".join(f"--- {node.log.name}\n{node.tail()}" for node in self.node.values())


def unchunk(body: bytes) -> bytes:
    """The content of a chunked body."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        whole, body = whole + rest[:length], rest[length + 2 :]
    return whole


def held(status: dict) -> dict[str, float]:
    """What a node holds for its requests, from /status."""
    held = {"open requests": status["totals"]["open"], "budget used": status["totals"]["budget_used"]}
    for session in status["sessions"]:
        for name in ("open_ours", "open_theirs", "budget_used", "credit_outstanding", "buffered"):
            held[f"{name} with {session['peer']}"] = session[name]
    return held
