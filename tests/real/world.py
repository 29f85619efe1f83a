"""The worlds that the cases run in: the same backends, reached in three ways.

direct        visitor -> backend: proves the case itself
server-entry  visitor -> server's port = tunnel = client -> backend
client-entry  visitor -> client's port = two tunnels = server -> backend
"""

import json
import os
import shutil
from dataclasses import dataclass

from process import OUT, Process, backend, free_port, run, up
from strait import LOAD, Pair, Service

MODES = ("direct", "server-entry", "client-entry")


@dataclass
class Backends:
    """Ports of the backends, started once for the whole run."""

    http: int = 0
    files: int = 0
    ws: int = 0
    grpc: int = 0
    fast: int = 0
    h2: int = 0  # nghttpx before `http`, for HTTP/2 in direct mode

    @classmethod
    async def start(cls) -> "Backends":
        """Starts them all."""
        it = cls()
        _, it.http = await backend("web", "backend-http")
        _, it.ws = await backend("ws", "backend-ws")
        _, it.grpc = await backend("rpc", "backend-grpc")
        it.files = await nginx()
        _, it.fast = await fast()
        it.h2 = await nghttpx(it.http)
        return it

    def services(self) -> list[Service]:
        """What a node offers, as on its command line."""
        return [
            Service("http", self.http),
            Service("http", self.ws, path="/ws"),
            Service("http", self.files, path="/files"),
            Service("http", self.fast, path="/fast"),
            Service("grpc", self.grpc),
        ]

    async def seen(self, port: int = 0) -> dict:
        """What an HTTP or WebSocket backend noticed."""
        return json.loads((await run("curl", "-sS", f"http://127.0.0.1:{port or self.http}/_seen")).ok().text)


async def nginx() -> int:
    """nginx with a folder of files: Range, conditional requests, real Debian bytes."""
    port, home = free_port(), OUT / "nginx"
    shutil.rmtree(home, ignore_errors=True)
    (home / "files").mkdir(parents=True)
    (home / "files" / "digits.txt").write_text("".join(f"{n:09d}\n" for n in range(100_000)))
    with open(home / "files" / "hole.bin", "wb") as hole:
        hole.truncate(1 << 30)
    (home / "nginx.conf").write_text(
        f"""daemon off; master_process off; worker_processes 1; pid {home}/pid; error_log stderr;
        events {{ worker_connections 4096; }}
        http {{ access_log off; root {home}; types {{ text/plain txt; text/javascript js; }} sendfile on; etag on;
          client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
          uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
          server {{ listen 127.0.0.1:{port} backlog=2048; }} }}"""
    )
    if os.geteuid() == 0:
        # As root nginx would hand its folders to another user.
        text = (home / "nginx.conf").read_text()
        (home / "nginx.conf").write_text("user root;\n" + text)
    process = await Process.start("backend-nginx", "nginx", "-p", home, "-e", "stderr", "-c", home / "nginx.conf")
    await up(process, port)
    return port


async def nghttpx(http: int) -> int:
    """Debian's HTTP/2 proxy before our backend: for direct mode, where nothing else speaks
    HTTP/2 before a backend of HTTP/1.1."""
    port = free_port()
    process = await Process.start(
        "nghttpx", "nghttpx", "--conf=/dev/null", f"--frontend=127.0.0.1,{port};no-tls",
        f"--backend=127.0.0.1,{http}", "--workers=1", "--single-process", "--no-via",
    )
    await up(process, port)
    return port


async def fast(name: str = "backend-fast", port: int = 0) -> tuple[Process, int]:
    """The backend for load: answers with a digest of each request, echoes WebSockets and
    gRPC calls, counts what is pulled from it."""
    port = port or free_port()
    process = await Process.start(name, LOAD, "serve", f"127.0.0.1:{port}")
    await up(process, port)
    return process, port


class World:
    """The addresses that a case visits."""

    def __init__(self, mode: str, backends: Backends):
        self.mode, self.backends = mode, backends
        self.pair: Pair | None = None
        self.http = f"127.0.0.1:{backends.http}"
        self.h2 = f"127.0.0.1:{backends.h2}"
        self.ws = f"127.0.0.1:{backends.ws}"
        self.files = f"127.0.0.1:{backends.files}"
        self.grpc = f"127.0.0.1:{backends.grpc}"
        self.fast = f"127.0.0.1:{backends.fast}"

    @classmethod
    async def start(cls, mode: str, backends: Backends, name: str = "", services=None, **flags) -> "World":
        """A world of its own pair, or the backends themselves."""
        world = cls(mode, backends)
        if mode == "direct":
            return world
        services = backends.services() if services is None else services
        side = "behind_client" if mode == "server-entry" else "behind_server"
        world.pair = Pair(name or mode, **{side: services}, **flags)
        await world.pair.up()
        world.visit(world.pair.entry[mode.split("-")[0]])
        return world

    def visit(self, port: int) -> None:
        """Everything is at one port now."""
        self.http = self.h2 = self.ws = self.files = self.grpc = self.fast = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        """Ends its pair."""
        if self.pair:
            await self.pair.down()

    def tail(self) -> str:
        """The ends of its logs."""
        return self.pair.tail() if self.pair else ""
