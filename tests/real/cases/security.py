"""TLS and credentials of the tunnel, TLS of an entry."""

import random
import re

from case import case
from curl import curl
from process import OUT, Process, certificate, free_port, run, until, up
from strait import BIN, TOKEN, Pair, Service

PIN = re.compile(r"sha256:[A-Za-z0-9+/=_:-]{32,}")


async def refused(pair: Pair, *flags, token: str = "") -> str:
    """What a client says that must not get in."""
    command = pair.command("client")
    # A good client may be running beside it.
    command[command.index("--entry") + 1] = "127.0.0.1:0"
    command[command.index("--admin") + 1] = "off"
    if token:
        command[command.index("--token") + 1] = token
    at = command.index("--entry")
    command[at:at] = [*flags, "--once"]
    ran = await run(*command, env=pair.environment, seconds=10)
    assert ran.code not in (0, 2, 78), f"exit code {ran.code}: {ran.errors}"
    assert "panicked" not in ran.errors, ran.errors
    return ran.errors + ran.text


@case("a tunnel with TLS by the development certificate and its pin", ("once",), seconds=40)
async def pinned(t):
    pair = await t.pair("tls", behind_client=[Service("http", t.backends.http)], tls=True)
    server = await pair.start("server")
    await pair.ready("server")

    def shown():
        text = server.log.read_text() + (OUT / "tls-server.out").read_text()
        found = PIN.search(text)
        return found and found.group(0)

    pin = await until("the server shows its pin", shown, 5)
    pair.client_flags = ["--pin", pin]
    await pair.start("client")
    await pair.joined()
    entry = f"http://127.0.0.1:{pair.entry['server']}"
    (await curl(f"{entry}/hello")).is_ok()
    body = random.Random(6).randbytes(20_000_000)
    got = (await curl(f"{entry}/echo", "--data-binary", "@-", "-H", "Expect:", stdin=body)).is_ok()
    assert got.body == body, f"{len(got.body)} bytes came back, not the {len(body)} sent"

    # The wrong certificate, by its pin and by the system's roots; the wrong token.
    wrong = "sha256:" + ("0" * 64 if re.fullmatch(r"sha256:[0-9a-f]{64}", pin) else "A" * 43 + "=")
    pair.client_flags = []
    said = await refused(pair, "--pin", wrong)
    assert re.search(r"pin|certificate", said), said
    said = await refused(pair)
    assert re.search(r"certificate", said), said
    said = await refused(pair, "--pin", pin, token="st_" + "w" * 43)
    assert re.search(r"token|credential|unauthenticated", said, re.I), said
    assert TOKEN not in said and "w" * 43 not in said, "the token is in the log"
    log = server.log.read_text()
    assert TOKEN not in log.split("\n", 1)[1], "the token is in the server's log"
    # The good client did not notice any of it.
    (await curl(f"http://127.0.0.1:{pair.entry['server']}/hello")).is_ok()


@case("a wrong, an empty and no token are refused alike", ("once",), seconds=40)
async def tokens(t):
    pair = await t.pair("tokens", behind_client=[Service("http", t.backends.http)])
    await pair.start("server")
    await pair.ready("server")
    said = await refused(pair, token="wrong")
    assert re.search(r"token|credential|unauthenticated", said, re.I), said
    # Nobody has ever offered anything, so there is no route.
    (await curl(f"http://127.0.0.1:{pair.entry['server']}/hello")).is_ok(404)


@case("a client pointed at something else says what answered", ("once",), seconds=40)
async def elsewhere(t):
    pair = await t.pair("elsewhere", behind_client=[Service("http", t.backends.http)])
    # HTTP/1.1 does not speak gRPC; HTTP/2 of another program answers 404.
    for port in (t.backends.h2, t.backends.http):
        pair.tunnel = port
        said = await refused(pair)
        assert re.search(r"not a strait|no strait|HTTP|gRPC", said, re.I), said
    pair.tunnel = free_port()
    said = await refused(pair)
    assert re.search(r"refused|connect", said, re.I), said


@case("the server does not start open", ("once",), seconds=30)
async def closed(t):
    tunnel = f"127.0.0.1:{free_port()}"
    common = ["--listen", f"127.0.0.1:{free_port()}", "--admin", "off"]
    ran = await run(BIN, "server", "--tunnel", "0.0.0.0:0", "--no-tls", "--token", TOKEN, *common, seconds=8)
    assert ran.code not in (0,), "a tunnel without TLS off loopback"
    assert "tls" in ran.errors.lower(), ran.errors
    ran = await run(BIN, "client", "--server", f"http://{tunnel}/path", "--token", TOKEN, "http", "1", seconds=8)
    assert ran.code in (2, 78), f"{ran.code}: {ran.errors}"


@case("an entry with TLS: ALPN chooses HTTP/2 or HTTP/1.1", ("once",), seconds=40)
async def entry(t):
    cert, key = await certificate("entry.test")
    pair = await t.pair("entry-tls", behind_client=[Service("http", t.backends.http)],
                        server_flags=["--entry-cert", str(cert), "--entry-key", str(key)])
    await pair.up()
    port = pair.entry["server"]
    url = f"https://entry.test:{port}"
    flags = ["--cacert", str(cert), "--resolve", f"entry.test:{port}:127.0.0.1", "-w", "%{stderr}%{http_version}"]
    for flag, version in (("--http2", "2"), ("--http1.1", "1.1")):
        ran = (await run("curl", "-sS", "--max-time", "10", flag, *flags, f"{url}/hello")).ok()
        assert ran.text == "hello\n" and ran.errors == version, (ran.text, ran.errors)
        ran = (await run("curl", "-sS", "--max-time", "10", flag, *flags, f"{url}/seen-head")).ok()
        assert '["x-forwarded-proto", "https"]' in ran.text.lower(), ran.text


async def signed(name: str, host: str):
    """A certificate for a host and its key, and the private authority that signed it (PEM)."""
    folder = OUT / f"authority-{name}"
    folder.mkdir(exist_ok=True)
    ca, ca_key, cert, key = (folder / file for file in ("ca.pem", "ca-key.pem", "cert.pem", "key.pem"))
    new = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-x509", "-days", "30")
    (await run(*new, "-keyout", ca_key, "-out", ca, "-subj", f"/CN={name}", "-addext", "keyUsage=keyCertSign")).ok()
    (await run(*new, "-keyout", key, "-out", cert, "-subj", f"/CN={host}", "-CA", ca, "-CAkey", ca_key,
               "-addext", f"subjectAltName=DNS:{host}", "-addext", "basicConstraints=critical,CA:FALSE")).ok()
    return ca, cert, key


@case("a service whose certificate is signed by a private authority: believed by `ca` only", ("once",), seconds=40)
async def private(t):
    ca, cert, key = await signed("private", "localhost")
    other, _, _ = await signed("other", "localhost")
    port = free_port()
    front = await Process.start(
        "private-nghttpx", "nghttpx", "--conf=/dev/null", f"--frontend=127.0.0.1,{port}",
        f"--backend=127.0.0.1,{t.backends.http}", "--workers=1", "--single-process", "--no-via", key, cert,
    )
    t.own.append(front)
    await up(front, port)
    settings = ""
    for name, host, authority in (("good", "localhost", ca), ("none", "localhost", None), ("other", "localhost", other),
                                  ("name", "127.0.0.1", ca)):
        settings += f'[[services]]\nname = "{name}"\nhosts = ["{name}.test"]\nbackend = "https://{host}:{port}"\n'
        settings += f'ca = "{authority}"\n' if authority else ""
    pair = await t.pair("private", client_settings=settings)
    await pair.up()
    url = f"http://127.0.0.1:{pair.entry['server']}/hello"
    assert (await curl(url, "-H", "Host: good.test")).is_ok().body == b"hello\n"
    for name in ("none", "other", "name"):
        got = (await curl(url, "-H", f"Host: {name}.test")).is_ok(502)
        assert got.one("x-strait-error") == b"backend_refused" and b"localhost" not in got.body, got.body
    lines = await until("four lines", lambda: (all := pair.lines("client"))[3:] and all, 5)
    told = {line["route"]: line["detail"] or "" for line in lines}
    assert told["good"] == "" and "its names" in told["name"], told
    assert "name that in `ca`" in told["none"] and "name that in `ca`" in told["other"], told
