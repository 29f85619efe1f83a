"""Strait and its peers: how each is configured and started, all on the loopback."""

import contextlib
import hashlib
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

from process import LOAD, STRAIT, TOOLS, Failed, Process, free_port, wait_for

TOKEN = "st_" + "b" * 43
ASK = b"GET /small HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


@dataclass
class Peer:
    """One that is measured, while it runs."""

    name: str
    http: str
    """Where its visitors come in: HTTP/1.1 and WebSockets."""
    grpc: str
    """Where gRPC comes in."""
    processes: list[Process] = field(default_factory=list)
    started: float = 0.0
    """Seconds from the start of its first process to the first answer through it."""
    binary: pathlib.Path | None = None
    folder: pathlib.Path | None = None

    def pids(self) -> list[int]:
        """All its processes, on both sides of the tunnel."""
        return [pid for process in self.processes for pid in process.pids()]

    def end(self) -> None:
        """Ends its processes."""
        for process in reversed(self.processes):
            process.end()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def backend(port: int, folder: pathlib.Path) -> Process:
    """Starts the backend of all peers."""
    process = Process([LOAD, "backend", f"127.0.0.1:{port}"], folder)
    wait_for(f"127.0.0.1:{port}", ASK, [process])
    return process


def certificate(folder: pathlib.Path) -> pathlib.Path:
    """Makes a certificate for this machine, as PEM and as PKCS #12."""
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN=localhost"
    more = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(["openssl", *words.split(), *more], cwd=folder, check=True, capture_output=True)
    words = "pkcs12 -export -in cert.pem -inkey key.pem -out both.p12 -passout pass:bench"
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    return folder


def direct(peer: Peer, target: int) -> None:
    peer.http = peer.grpc = f"127.0.0.1:{target}"


def strait(peer: Peer, target: int, tls: bool, wrap=lambda words: words, tunnels: int = 1) -> None:
    """Server and client; `wrap` makes the command that runs a command. With several tunnels each has a thread."""
    entry, tunnel = free_port(), free_port()
    peer.http = peer.grpc = f"127.0.0.1:{entry}"
    peer.binary = pathlib.Path(STRAIT)
    common = ["--admin", "off", "--log-level", "warn", "--no-access-log"]
    env = {"STRAIT_TOKEN": TOKEN, "STRAIT_STATE": str(peer.folder)}
    server = [STRAIT, "server", "--listen", peer.http, "--tunnel", f"127.0.0.1:{tunnel}", *common]
    client = [STRAIT, "client", "--server", f"{'https' if tls else 'http'}://127.0.0.1:{tunnel}", *common]
    if tunnels > 1:
        server += ["--threads", str(tunnels)]
        client += ["--threads", str(tunnels), "--tunnels", str(tunnels)]
    if tls:
        certificate(peer.folder)
        server += ["--tls-cert", peer.folder / "cert.pem", "--tls-key", peer.folder / "key.pem"]
        # As with the certificate that a server makes for itself: nobody signed it, so it is pinned.
        pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert((peer.folder / "cert.pem").read_text())).hexdigest()
        client += ["--pin", f"sha256:{pin}"]
    else:
        server += ["--no-tls"]
    peer.processes.append(Process(wrap(server), peer.folder, env))
    wait_open(tunnel, peer.processes)
    client += ["http", str(target), "grpc", str(target)]
    peer.processes.append(Process(wrap(client), peer.folder, env))


@contextlib.contextmanager
def tunnel(folder: pathlib.Path, wrap, tls: bool = False, patience: float = 15):
    """Strait in front of a backend, each of its commands run by `wrap`; ends both."""
    target = free_port()
    behind = backend(target, folder)
    peer = Peer("strait", "", "", folder=folder)
    try:
        strait(peer, target, tls, wrap)
        wait_for(peer.http, ASK, peer.processes, patience)
        yield peer
    finally:
        peer.end()
        behind.end()


def wait_open(port: int, processes: list[Process]) -> None:
    """Waits until a port accepts: a client that comes too early would wait before it tries again."""
    for _ in range(5000):
        for process in processes:
            process.check()
        with socket.socket() as asked:
            asked.settimeout(0.05)
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.001)
    raise Failed(f"nothing listens at port {port}")


NGINX = """
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 9000; multi_accept on; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000; keepalive_timeout 600; client_max_body_size 0;
  proxy_http_version 1.1; proxy_set_header Host $host;
  proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
  proxy_request_buffering off; proxy_max_temp_file_size 0; proxy_read_timeout 600;
  http2_max_concurrent_streams 1000;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
{servers}
}}
"""

UPSTREAM = "  upstream {name} {{ server 127.0.0.1:{port}; keepalive 256; keepalive_requests 100000000; }}\n"
TRUST = "proxy_ssl_verify on; proxy_ssl_trusted_certificate {folder}/cert.pem; proxy_ssl_name localhost;"


def nginx_process(peer: Peer, name: str, servers: str) -> None:
    folder = peer.folder / name
    folder.mkdir()
    if (peer.folder / "cert.pem").exists():
        for file in ("cert.pem", "key.pem"):
            shutil.copy(peer.folder / file, folder)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, servers=servers.replace("FOLDER", str(folder))))
    words = [shutil.which("nginx") or "/usr/sbin/nginx", "-e", folder / "error.log", "-c", folder / "nginx.conf"]
    peer.processes.append(Process(words, folder))


def nginx(peer: Peer, target: int) -> None:
    http, grpc = free_port(), free_port()
    peer.http, peer.grpc = f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"
    servers = UPSTREAM.format(name="backend", port=target)
    servers += f"  server {{ listen 127.0.0.1:{http}; location / {{ proxy_pass http://backend; }} }}\n"
    servers += f"  server {{ listen 127.0.0.1:{grpc} http2; location / {{ grpc_pass grpc://backend; }} }}\n"
    nginx_process(peer, "only", servers)


def nginx_twice(peer: Peer, target: int) -> None:
    certificate(peer.folder)
    http, grpc, http_tls, grpc_tls = (free_port() for _ in range(4))
    peer.http, peer.grpc = f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"
    tls = "ssl_certificate FOLDER/cert.pem; ssl_certificate_key FOLDER/key.pem;"
    inner = UPSTREAM.format(name="backend", port=target)
    inner += f"  server {{ listen 127.0.0.1:{http_tls} ssl; {tls} location / {{ proxy_pass http://backend; }} }}\n"
    inner += f"  server {{ listen 127.0.0.1:{grpc_tls} ssl http2; {tls} location / {{ grpc_pass grpc://backend; }} }}\n"
    nginx_process(peer, "inner", inner)
    trust = TRUST.replace("{folder}", "FOLDER")
    outer = UPSTREAM.format(name="http", port=http_tls) + UPSTREAM.format(name="grpc", port=grpc_tls)
    outer += f"  server {{ listen 127.0.0.1:{http}; location / {{ proxy_pass https://http; {trust} }} }}\n"
    trust = trust.replace("proxy_", "grpc_")
    outer += f"  server {{ listen 127.0.0.1:{grpc} http2; location / {{ grpc_pass grpcs://grpc; {trust} }} }}\n"
    wait_open(http_tls, peer.processes)
    nginx_process(peer, "outer", outer)


HAPROXY = """
global
  maxconn 4000
  nbthread 2
defaults
  mode http
  timeout connect 10s
  timeout client 600s
  timeout server 600s
  timeout tunnel 600s
  http-reuse always
frontend http
  bind 127.0.0.1:{http}
  default_backend http
frontend grpc
  bind 127.0.0.1:{grpc} proto h2
  default_backend grpc
backend http
  server one 127.0.0.1:{target} pool-max-conn 1000
backend grpc
  server one 127.0.0.1:{target} proto h2
"""


def haproxy(peer: Peer, target: int) -> None:
    http, grpc = free_port(), free_port()
    peer.http, peer.grpc = f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"
    file = peer.folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(http=http, grpc=grpc, target=target))
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    peer.processes.append(Process([program, "-db", "-f", file], peer.folder))


def rathole(peer: Peer, target: int, tls: bool) -> None:
    entry, tunnel = free_port(), free_port()
    peer.http = peer.grpc = f"127.0.0.1:{entry}"
    peer.binary = TOOLS / "bin" / "rathole"
    at_server = at_client = '[{side}.transport]\ntype = "tcp"\n[{side}.transport.tcp]\nnodelay = true\n'
    host = "127.0.0.1"
    if tls:
        folder, host = certificate(peer.folder), "localhost"
        at_server = at_client = '[{side}.transport]\ntype = "tls"\n[{side}.transport.tcp]\nnodelay = true\n'
        at_server += f'[server.transport.tls]\npkcs12 = "{folder}/both.p12"\npkcs12_password = "bench"\n'
        at_client += f'[client.transport.tls]\ntrusted_root = "{folder}/cert.pem"\nhostname = "localhost"\n'
    files = {
        "server": f'[server]\nbind_addr = "127.0.0.1:{tunnel}"\ndefault_token = "bench"\n'
        + at_server.replace("{side}", "server")
        + f'[server.services.web]\nbind_addr = "127.0.0.1:{entry}"\nnodelay = true\n',
        "client": f'[client]\nremote_addr = "{host}:{tunnel}"\ndefault_token = "bench"\n'
        + at_client.replace("{side}", "client")
        + f'[client.services.web]\nlocal_addr = "127.0.0.1:{target}"\nnodelay = true\n',
    }
    for side, text in files.items():
        file = peer.folder / f"{side}.toml"
        file.write_text(text)
        peer.processes.append(Process([peer.binary, f"--{side}", file], peer.folder, {"RUST_LOG": "warn"}))
        wait_open(tunnel, peer.processes)


BORE = 7835


def bore(peer: Peer, target: int) -> None:
    entry = free_port()
    peer.http = peer.grpc = f"127.0.0.1:{entry}"
    peer.binary = TOOLS / "bin" / "bore"
    with socket.socket() as asked:
        if asked.connect_ex(("127.0.0.1", BORE)) == 0:
            raise Failed(f"bore can only use port {BORE}, which is taken: leave it out with --peers")
    words = ["server", "--min-port", "1024", "--bind-addr", "127.0.0.1", "--bind-tunnels", "127.0.0.1"]
    peer.processes.append(Process([peer.binary, *words], peer.folder, {"RUST_LOG": "warn"}))
    wait_open(BORE, peer.processes)
    words = ["local", target, "--to", "127.0.0.1", "--port", entry]
    peer.processes.append(Process([peer.binary, *words], peer.folder, {"RUST_LOG": "warn"}))


@dataclass(frozen=True)
class Kind:
    """One that can be measured."""

    start: object
    commands: tuple = ()
    terminates: bool = True
    """Whether it understands HTTP. If not it carries a caller's gRPC connection as bytes."""


PEERS = {
    "direct": Kind(direct),
    "strait": Kind(lambda peer, target: strait(peer, target, False)),
    "strait-tls": Kind(lambda peer, target: strait(peer, target, True), ("openssl",)),
    "strait-2": Kind(lambda peer, target: strait(peer, target, False, tunnels=2)),
    "strait-2-tls": Kind(lambda peer, target: strait(peer, target, True, tunnels=2), ("openssl",)),
    "nginx": Kind(nginx, ("nginx",)),
    "nginx-2-tls": Kind(nginx_twice, ("nginx", "openssl")),
    "haproxy": Kind(haproxy, ("haproxy",)),
    "rathole": Kind(lambda peer, target: rathole(peer, target, False), ("rathole",), False),
    "rathole-tls": Kind(lambda peer, target: rathole(peer, target, True), ("rathole", "openssl"), False),
    "bore": Kind(bore, ("bore",), False),
}


def start(name: str, target: int, folder: pathlib.Path, ready: bool = True) -> Peer:
    """Starts one; `ready`: waits until a request gets through to port `target`."""
    own = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    # The workers of nginx are nobody.
    own.chmod(0o755)
    peer = Peer(name, "", "", folder=own)
    try:
        began = time.monotonic()
        PEERS[name].start(peer, target)
        if ready:
            wait_for(peer.http, ASK, peer.processes)
            peer.started = time.monotonic() - began
    except BaseException:
        peer.end()
        raise
    return peer
