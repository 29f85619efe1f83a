"""A browser: Debian's Chromium, headless, runs a page of pages/ and posts what it found."""

import base64
import hashlib
import json
import shutil
import sys
import tempfile

from case import ENTRIES, case
from cases.grpc_calls import seen as grpc_seen
from process import HERE, OUT, Process, certificate, run, until

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--disable-extensions", "--mute-audio",
]

# Of pages/tries.js.
REQUESTS = {"abort": "AbortError", "events": ["0", "1", "2"]}
SOCKETS = {
    "text": ["grüße 🚀", "permessage-deflate", 3001, True],
    "binary": True,
    "closed": [4321, "because", True],
    "cut": True,
    "protocol": "chat.v2",
    "refused": 1006,
    "many": True,
}
# Of pages/browser.html.
WANTED = {"fetch": [200, "hello\n"], "upload": True, "stream": 3, **REQUESTS, **SOCKETS}
# Of pages/client/page.js, through an entry with TLS.
CONNECT = {
    "unary": [7, 300_000, True],
    "metadata": ["1", "2, 3", [["x-mine", "mine"]]],
    "stream": [20, True, True],
    "status": [3, "not like this: ü % 100", 1],
    "failed": [0, 1, 15, "lost it", "after messages"],
    "deadline": 4,
    "cancel": 1,
    "missing": 12,
}
OFFICIAL = {
    "unary": [7, 100_001, True],
    "status": [3, "not like this: ü % 100"],
}
ALL_WANTED = {
    "http": {"version": "h2", "upload": [2_000_000, True], "stream": [False, True], **REQUESTS},
    "socket h2": SOCKETS,
    "socket h1": SOCKETS,
    "connect": CONNECT,
    "connect elsewhere": CONNECT,
    "grpc-web text": {**OFFICIAL, "stream": [0, 1, 2, 3, 4, "end"], "failed": [0, 1, 15, "lost it"]},
    "grpc-web binary": OFFICIAL,
}


async def reports(t, url: str, note: str, *flags) -> dict:
    """What the page at `url` found."""
    home = tempfile.mkdtemp(prefix="strait-chromium-")
    browser = await Process.start(f"chromium-{note}", "chromium", *FLAGS, *flags, f"--user-data-dir={home}",
                                  "--remote-debugging-port=0", url, env={"HOME": home})
    try:

        async def reported():
            assert browser.alive, f"the browser ended:\n{browser.tail()}"
            return (await t.backends.seen()).get(note)

        return await until("the page reports", reported, 75, 0.2)
    finally:
        await browser.stop()
        shutil.rmtree(home, ignore_errors=True)


def check(found: dict, wanted: dict) -> None:
    """Fails with what the page found instead."""
    wrong = {name: found.get(name) for name in wanted if found.get(name) != wanted[name]}
    assert not wrong, f"the browser found {wrong}"


@case("chromium: fetch, EventSource and WebSocket of a page", seconds=90)
async def page(t):
    note = f"browser-{t.mode}"
    url = f"http://{t.world.http}/page?name=browser.html&note={note}&ws={t.world.ws}"
    check(await reports(t, url, note, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"), WANTED)
    seen = await t.backends.seen()
    assert f"{note}-abort:cancelled" in seen, "an aborted fetch went on at the backend"


async def bundle(name: str, target, *flags) -> None:
    """Makes one file of a script in pages/client, with the descriptors of the proto file."""
    descriptors = OUT / "probe.bin"
    (await run(sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE / 'proto'}",
               f"--descriptor_set_out={descriptors}", HERE / "proto" / "probe.proto")).ok()
    client = HERE / "pages" / "client"
    (await run(client / "node_modules" / ".bin" / "esbuild", client / name, "--bundle", "--format=esm",
               f"--outfile={target}", "--log-level=warning", *flags,
               f'--define:PROBE="{base64.b64encode(descriptors.read_bytes()).decode()}"')).ok()


async def cancelled(t, note: str) -> None:
    """Waits until the gRPC backend has noticed that a call was cancelled."""
    await until("the backend's call is cancelled", lambda: grpc_seen(t, f"{note}-cancel:cancelled"), 5)


@case("node h1: gRPC-Web", ENTRIES, seconds=40)
async def node(t):
    note = f"node-{t.mode}"
    script = OUT / f"{note}.mjs"
    await bundle("node.js", script, "--platform=node")
    ran = (await run("node", script, f"http://{t.world.grpc}", note)).ok()
    check(json.loads(ran.text), CONNECT)
    await cancelled(t, note)
    near = t.mode.split("-")[0]
    calls = [line for line in t.world.pair.lines(near) if line["protocol"] == "grpc" and line["path"].endswith("/Missing")]
    assert "1.1" in {line["http_version"] for line in calls}, calls


async def fingerprint(cert) -> str:
    """The SHA-256 of a certificate's public key, as Chromium wants it."""
    pem = (await run("openssl", "x509", "-in", cert, "-noout", "-pubkey")).ok()
    der = (await run("openssl", "pkey", "-pubin", "-outform", "der", stdin=pem.out)).ok()
    return base64.b64encode(hashlib.sha256(der.out).digest()).decode()


@case("chromium over TLS: HTTP/2, WebSocket by both versions and gRPC-Web, all at once", ENTRIES, seconds=90)
async def everything(t):
    note = f"all-{t.mode}"
    # nginx has a folder that it offers.
    await bundle("page.js", OUT / "nginx" / "files" / "page.js")
    cert, key = await certificate("page.test")
    side = "behind_client" if t.mode == "server-entry" else "behind_server"
    pair = await t.pair(note, **{side: t.backends.services()}, certificate=(cert, key))
    near = t.mode.split("-")[0]
    port = pair.entry[near]
    # Of pages at another host that call this one, the page itself has the only grant.
    pair.cors_origins = [f"https://page.test:{port}"]
    await pair.up()
    found = await reports(
        t, f"https://page.test:{port}/page?name=all.html&note={note}", note,
        f"--ignore-certificate-errors-spki-list={await fingerprint(cert)}",
        "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    )
    check(found, {f"{group}: {name}": value for group, wanted in ALL_WANTED.items() for name, value in wanted.items()})

    # As the entry saw it: which version of HTTP each kind of request came by.
    sockets = sum(10 if name == "many" else 1 for name in SOCKETS)
    wanted = {
        ("websocket", "page.test"): ["2"] * sockets,
        ("websocket", "socket.test"): ["1.1"] * sockets,
        ("grpc", "page.test"): ["2"] * (len(CONNECT) + 2 * len(OFFICIAL) + 2),
        ("grpc", "rpc.test"): ["2"] * len(CONNECT),
    }

    def by() -> dict:
        found = {}
        for line in pair.lines(near):
            if line["via"] == "entry" and line["protocol"] != "http":
                found.setdefault((line["protocol"], line["host"]), []).append(line["http_version"])
        return found

    try:
        # A line is written when the socket has closed on both sides.
        await until("the access log has them", lambda: by() == wanted, 5)
    except AssertionError:
        raise AssertionError(f"the access log has {by()}") from None
    preflights = [line for line in pair.lines(near) if line["method"] == "OPTIONS"]
    assert not preflights, f"passed on: {preflights}"
    t.note(", ".join(f"{len(versions)} {protocol} at {host} by HTTP/{versions[0]}" for (protocol, host), versions in wanted.items()))
    await cancelled(t, note)
    await cancelled(t, f"{note}-elsewhere")

    async def left() -> bool:
        seen = await t.backends.seen()
        return f"{note}-abort:cancelled" in seen and f"{note}-stream:cancelled" in seen

    await until("the backend sees that fetches were aborted", left, 5)
