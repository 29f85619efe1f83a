"""How a node starts, or says why not: exact words, exit codes, nothing left behind."""

import asyncio
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import time

from case import Skip, case
from curl import curl
from process import OUT, ROOT, Process, free_port, run, until
from strait import BIN, TOKEN, Service

# Somebody without rights, whoever runs the tests.
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


def client(server: str, *words) -> list[str]:
    """A client with one service."""
    return [str(BIN), "client", "--server", server, "--token", TOKEN, "--admin", "off", *words, "http", "9"]


@contextlib.asynccontextmanager
async def stranger(says: bytes, waits: bool = True):
    """A server of another protocol: `says` at once, or to whoever spoke first."""

    async def talk(reader, writer):
        with contextlib.suppress(OSError, ConnectionError):
            if waits:
                await reader.read(10)
            writer.write(says)
            await writer.drain()
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 3)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def says(command: list[str], code: int = 1) -> str:
    """The last word of a program that must end by itself with this code; beside it the log
    may tell that the service is down."""
    ran = await run(*command, seconds=20, env={"STRAIT_STATE": str(OUT / "startup-state")})
    assert ran.code == code, f"exit code {ran.code}: {ran.errors}"
    assert "panicked" not in ran.errors, ran.errors
    return [line for line in ran.errors.splitlines() if line and " WARN " not in line][-1]


@case("startup: a client tells who answers where no Strait server is", ("once",), seconds=60)
async def strangers(t):
    html = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 0\r\n\r\n"
    mail = b"220 mail.example ESMTP\r\n"
    no_tls = "it does not speak TLS there; use http:// if the tunnel runs without TLS"
    for scheme, answer, waits, expected in (
        ("http", html, True, "not a Strait server (HTTP 404, text/html); or it expects https://"),
        ("http", mail, False, 'not a Strait server (it says "220 mail.example ESMTP"); or it expects https://'),
        ("http", b"\x1b[2J\x07\n", False, 'not a Strait server (it says ".[2J."); or it expects https://'),
        ("https", html, True, no_tls),
        ("https", mail, False, no_tls),
    ):
        async with stranger(answer, waits) as port:
            said = await says(client(f"{scheme}://127.0.0.1:{port}", "--once"))
            assert said == f"strait: {scheme}://127.0.0.1:{port}: {expected}", said
    # An HTTP/2 server of another kind, and a node's own entry.
    said = await says(client(f"http://127.0.0.1:{t.backends.h2}", "--once"))
    assert f"http://127.0.0.1:{t.backends.h2}: not a Strait server (HTTP 404, " in said, said
    pair = await t.pair("strangers", behind_client=[Service("http", t.backends.http)])
    await pair.up()
    said = await says(client(f"http://127.0.0.1:{pair.entry['server']}", "--once"))
    assert "gRPC is spoken there, but no Strait tunnels are taken; is it the tunnel's port?" in said, said
    # Nobody at all.
    port = free_port()
    said = await says(client(f"http://127.0.0.1:{port}", "--once"))
    assert said == f"strait: http://127.0.0.1:{port}: nothing listens there (connection refused)", said


@case("startup: a name that does not resolve: --once ends, without it is said once and tried again", ("once",), seconds=40)
async def unresolved(t):
    url = "http://no-such-host.invalid:7443"
    said = await says(client(url, "--once"))
    assert said.startswith(f"strait: {url}: failed to lookup address"), said
    node = await Process.start("unresolved", *client(url), split=True)
    t.own.append(node)
    await until("it says so", lambda: "failed to lookup" in node.log.read_text(), 10)
    await asyncio.sleep(1.5)
    assert node.alive, "it gave up"
    assert node.log.read_text().count("failed to lookup") == 1, node.tail()
    node.signal(signal.SIGTERM)
    assert await node.ended(5) == 0, node.tail()


@case("startup: a wrong token is said once, and tried again slowly", ("once",), seconds=40)
async def wrong_token(t):
    pair = await t.pair("wrong-token")
    await pair.start("server")
    await pair.ready("server")
    command = client(f"http://127.0.0.1:{pair.tunnel}")
    command[command.index("--token") + 1] = "st_" + "w" * 43
    node = await Process.start("wrong-token-holder", *command, split=True)
    t.own.append(node)
    refused = "check --token (or STRAIT_TOKEN) against what the server printed; trying again"
    await until("it says so", lambda: refused in node.log.read_text(), 10)
    await asyncio.sleep(3)
    assert node.alive and node.log.read_text().count("check --token") == 1, node.tail()
    assert "w" * 43 not in node.log.read_text().split("\n", 1)[1], "the token is in the log"
    # Each attempt is a connection: those of three seconds are few.
    attempts = pair.node["server"].log.read_text().count("refused")
    t.note(f"{attempts} attempts are in the server's log")
    assert attempts <= 2, pair.node["server"].tail()


@case("startup: a service that is down at the start: warned of, answered 502, found when it comes", ("once",), seconds=40)
async def late_service(t):
    port = free_port()
    pair = await t.pair("late-service", behind_client=[Service("http", port)])
    await pair.up()
    warning = f"http://localhost:{port} does not accept connections yet"
    await until("the client warns", lambda: warning in pair.node["client"].log.read_text(), 5)
    entry = f"http://127.0.0.1:{pair.entry['server']}/x"
    (await curl(entry)).is_ok(502)
    async with stranger(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as other:
        relay = await Process.start("late-relay", "nghttpx", "--conf=/dev/null", f"--frontend=127.0.0.1,{port};no-tls",
                                    f"--backend=127.0.0.1,{other}", "--workers=1", "--single-process")
        t.own.append(relay)

        async def there():
            return (await curl(entry)).body == b"ok"

        await until("the service is found", there, 10, 0.1)


@case("startup: strait check: exit code 78 for what is wrong, 0 for what is good; it listens to nothing", ("once",), seconds=60)
async def checks(t):
    folder = OUT / "startup"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # All that the page of mistakes knows is refused by the program, too.
    page = ROOT / "crates/strait-node/tests/mistakes.golden"
    blocks = [block for block in page.read_text().split("\n\n") if block.startswith("[server]")][::6]
    for block in blocks:
        text = "".join(f"{line}\n" for line in block.splitlines() if not line.startswith("=> "))
        expected = next(line[3:] for line in block.splitlines() if line.startswith("=> "))
        (folder / "f").write_text(text)
        ran = await run("sh", "-c", f"cd {folder} && exec {BIN} check f", seconds=5)
        assert ran.code == 78 and ran.out == b"", f"{ran.code} {ran.text} for\n{text}"
        assert ran.errors.splitlines()[0] == expected, f"{ran.errors}\ninstead of\n{expected}"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (folder / "f").write_text(f'[server]\ninsecure_no_auth = true\nlisten = "127.0.0.1:{port}"\n')
        (await run(BIN, "check", folder / "f", seconds=5)).ok()
    t.note(f"{len(blocks)} mistakes")


@case("startup: strait check: ten times the routes cost ten times the time, not a hundred", ("once",), seconds=90)
async def many_routes(t):
    def write(count: int) -> pathlib.Path:
        path = OUT / f"routes-{count}.toml"
        with open(path, "w") as file:
            file.write("[server]\ninsecure_no_auth = true\n")
            for n in range(count):
                file.write(f'[[services]]\nname = "s{n}"\nbackend = 3000\npath = "/p{n}"\n')
        return path

    async def cost(count: int) -> float:
        path, best = write(count), float("inf")
        for _ in range(3):
            began = time.monotonic()
            (await run(BIN, "check", path, seconds=30)).ok()
            best = min(best, time.monotonic() - began)
        path.unlink()
        return best

    few, many = await cost(10_000), await cost(100_000)
    t.note(f"10,000 in {few * 1000:.0f} ms, 100,000 in {many * 1000:.0f} ms")
    assert many < 40 * few, f"{many:.2f} s after {few:.2f} s"


@case("startup: without rights: a file, a port and a folder that are denied are named", ("once",), seconds=40)
async def denied(t):
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        raise Skip("only root can give up its rights")
    folder = OUT / "denied"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # The program itself may lie where nobody may look.
    home = pathlib.Path("/tmp") / f"strait-denied-{os.getpid()}"
    home.mkdir()
    try:
        shutil.copy(BIN, home / "strait")
        secret, state = home / "secret.toml", home / "state"
        secret.write_text("[server]\ninsecure_no_auth = true\n")
        secret.chmod(0o600)
        state.mkdir()
        state.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
        strait = [*NOBODY, str(home / "strait")]
        assert await says([*strait, "check", str(secret)], 78) == f"{secret}: cannot read: Permission denied (os error 13)"
        common = ["--tunnel", "127.0.0.1:0", "--admin", "off"]
        if int(pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) > 80:
            said = await says([*strait, "server", "--listen", "127.0.0.1:80", "--insecure-no-auth", *common])
            assert said == (
                "strait: entry web cannot listen on 127.0.0.1:80: Permission denied (os error 13); choose a port above "
                "1023, or give the program the right (setcap cap_net_bind_service=+ep)"
            ), said
        else:
            t.note("every port is free for everybody here")
        node = await Process.start("denied", *strait, "server", "--listen", "127.0.0.1:0", *common,
                                   env={"STRAIT_STATE": str(state)}, split=True)
        t.own.append(node)
        warning = f"warning: cannot write the state folder {state}: Permission denied"
        await until("it starts all the same", lambda: "--token st_" in node.log.read_text(), 10)
        assert node.log.read_text().count(warning) == 1, node.log.read_text()
        node.signal(signal.SIGTERM)
        assert await node.ended(5) == 0, node.tail()
    finally:
        shutil.rmtree(home)


@case("startup: an output that is closed or gone ends nothing", ("once",), seconds=40)
async def outputs(t):
    port, admin = free_port(), free_port()
    command = f"{BIN} server --listen 127.0.0.1:{port} --tunnel 127.0.0.1:0 --admin 127.0.0.1:{admin} --insecure-no-auth"
    for redirect in (">&- 2>&-", "2>/dev/full >/dev/full", "2>&1 | head -c 1 >/dev/null"):
        # `exec` where there is no pipe, so that the signal meets the program.
        script = f"{command} {redirect}" if "|" in redirect else f"exec {command} {redirect}"
        node = await Process.start("outputs", "sh", "-c", script)
        t.own.append(node)

        async def answers():
            return (await curl(f"http://127.0.0.1:{port}/")).status == 404

        await until(f"it serves with {redirect}", answers, 10, 0.05)
        for _ in range(3):
            (await curl(f"http://127.0.0.1:{port}/")).is_ok(404)
        await node.stop()


@case("startup: --version and --help are there before anything else is", ("once",), seconds=20)
async def prompt(t):
    began = time.monotonic()
    true = (await run("true")).seconds
    version = (await run(BIN, "--version")).ok()
    help = (await run(BIN, "--help")).ok()
    t.note(f"version {version.seconds * 1000:.0f} ms, help {help.seconds * 1000:.0f} ms, true {true * 1000:.0f} ms")
    assert re.fullmatch(r"strait \d+\.\d+\.\d+\n", version.text), version.text
    assert time.monotonic() - began < 5, "they wait for something"
