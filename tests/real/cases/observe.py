"""What the program says about itself: check, status, metrics, health, the access log."""

import asyncio
import json

from case import ENTRIES, case
from cases.grpc_calls import Probe
from cases.websocket import at
from curl import curl
from process import OUT, ROOT, run, until
from strait import BIN, TOKEN
import stubs

pb, _ = stubs.load()
NEAR = {"server-entry": "server", "client-entry": "client"}
FAR = {"server-entry": "client", "client-entry": "server"}


@case("/healthz, /readyz, /status and /metrics answer", ENTRIES)
async def pages(t):
    pair = t.world.pair
    # A count of what was never carried is not there.
    (await curl(f"http://{t.world.http}/hello")).is_ok()
    wanted = {"strait_requests_total", "strait_sessions"}
    for side in ("server", "client"):
        assert await pair.get(side, "/healthz") is not None, side
        assert await pair.get(side, "/readyz") is not None, side
        status = await pair.status(side)
        assert status["role"] == side and len(status["sessions"]) == pair.tunnels, status

        async def has_all(side=side) -> bool:
            return wanted <= {name.split("{")[0] for name in await pair.metrics(side)}

        await until(f"{side} has {sorted(wanted)}", has_all, 3)


@case("/metrics counts what was carried", ENTRIES)
async def counts(t):
    pair, side = t.world.pair, NEAR[t.mode]

    async def requests(**labels) -> float:
        return sum(
            value
            for name, value in (await pair.metrics(side)).items()
            if name.startswith("strait_requests_total{") and all(f'{k}="{v}"' in name for k, v in labels.items())
        )

    before = await requests(protocol="http", status="200"), await requests(protocol="http", status="418")
    for _ in range(3):
        (await curl(f"http://{t.world.http}/hello")).is_ok()
    (await curl(f"http://{t.world.http}/status?code=418")).is_ok(418)

    async def counted():
        now = await requests(protocol="http", status="200"), await requests(protocol="http", status="418")
        return (now[0] - before[0], now[1] - before[1]) == (3, 1)

    await until("the metrics count four requests", counted, 3)


@case("/readyz says no while there is no tunnel", ("once",))
async def not_ready(t):
    pair = await t.pair("lonely")
    for side in ("client", "server"):
        await pair.start(side)
        await until(f"the {side}'s admin answers", lambda side=side: pair.get(side, "/healthz"), 5)
        if side == "client":
            assert await pair.get("client", "/readyz") is None, "a client without a tunnel says that it is ready"
    await pair.ready("server")
    await pair.ready("client", 15)


@case("the admin address answers to its own names only", ENTRIES)
async def names(t):
    port = t.world.pair.admin[NEAR[t.mode]]
    got = await curl(f"http://127.0.0.1:{port}/status", "-H", "Host: evil.example")
    assert got.status in (400, 403, 421), got.status
    assert b"sessions" not in got.body


@case("strait status prints what is there", ENTRIES)
async def status(t):
    pair, side = t.world.pair, FAR[t.mode]
    admin = f"127.0.0.1:{pair.admin[side]}"
    waiting = asyncio.ensure_future(curl(f"http://{t.world.http}/wait?ms=1500"))
    await asyncio.sleep(0.5)
    text = (await run(BIN, "status", "--admin", admin)).ok().text
    assert side in text and "/wait" in text, text
    raw = json.loads((await run(BIN, "status", "--admin", admin, "--json")).ok().text)
    assert raw["role"] == side and any("/wait" in e["what"] for e in raw["in_flight"]), raw
    (await waiting).is_ok()
    gone = await run(BIN, "status", "--admin", "127.0.0.1:1")
    assert gone.code != 0 and "127.0.0.1:1" in gone.errors, gone.errors


@case("one access-log line for each exchange", ENTRIES)
async def access(t):
    world = await t.alone(f"access-{t.mode}")
    trace = "0af7651916cd43dd8448eb211c80319c"
    flags = ["-H", f"traceparent: 00-{trace}-b7ad6b7169203331-01", "--data-binary", "x" * 1000]
    (await curl(f"http://{world.http}/digest?secret=1", *flags)).is_ok()
    (await curl(f"http://{world.http}/status?code=404")).is_ok(404)
    await curl(f"http://{world.http}/cut?n=1000&framing=chunked")
    (await curl(f"http://{world.http}/two%0alines")).is_ok(404)
    async with Probe(world.grpc) as probe:
        await probe.Ask(pb.Question(payload=b"q" * 10))
        try:
            await probe.Ask(pb.Question(what="status"))
        except Exception as error:
            assert "INVALID_ARGUMENT" in str(error), error
    async with at(world.ws, "echo", compression=None) as ws:
        for _ in range(3):
            await ws.send("12345")
            await ws.recv()
    for side in (NEAR[t.mode], FAR[t.mode]):
        lines = await until(f"seven lines of the {side}", lambda side=side: _seven(world.pair, side), 5)
        check(lines, side == NEAR[t.mode], trace, side)


def _seven(pair, side):
    lines = pair.lines(side)
    assert len(lines) <= 7, f"more lines than exchanges: {lines}"
    return lines if len(lines) == 7 else None


def check(lines: list[dict], near: bool, trace: str, side: str) -> None:
    """Every line says what happened."""
    by_path: dict[str, list[dict]] = {}
    for line in lines:
        assert line["via"] == ("entry" if near else "session"), line
        assert line["duration_ms"] >= 0 and line["id"] and line["trace_id"], line
        by_path.setdefault(line["path"], []).append(line)
    digest = by_path["/digest"][0]
    assert (digest["protocol"], digest["method"], digest["status"]) == ("http", "POST", 200), digest
    assert digest["bytes_in"] == 1000 and digest["trace_id"] == trace, digest
    assert digest["end"] == "complete" and digest["first_byte_ms"] is not None and digest["route"], digest
    assert "secret" not in json.dumps(lines), "the log holds a query"
    assert by_path["/status"][0]["status"] == 404
    cut = by_path["/cut"][0]
    assert cut["status"] == 200 and cut["end"] == "backend_reset", f"the {side} says {cut}"
    ask, failed = sorted(by_path["/probe.v1.Probe/Ask"], key=lambda line: line["grpc_status"])
    assert (ask["protocol"], ask["grpc_status"], ask["messages_in"], ask["messages_out"]) == ("grpc", 0, 1, 1), ask
    assert failed["grpc_status"] == 3 and failed["end"] == "complete", failed
    ws = by_path["/ws/echo"][0]
    assert ws["protocol"] == "websocket" and ws["status"] == 101 and ws["end"] == "complete", ws
    # Three texts and a close frame each way.
    assert (ws["messages_in"], ws["messages_out"]) == (4, 4), ws
    assert ws["bytes_in"] == ws["bytes_out"] == 17, ws


@case("strait check: a good file, a bad file", ("once",))
async def check_files(t):
    folder = OUT / "check"
    folder.mkdir(exist_ok=True)
    example = ROOT / "docs" / "strait.example.toml"
    (await run(BIN, "check", example, env={"STRAIT_TOKEN": TOKEN})).ok()
    for name, text, words in (
        ("unknown.toml", example.read_text() + '\nlistn = "x"\n', ["listn"]),
        ("broken.toml", "[[entry\n", ["broken.toml:1:"]),
        ("empty.toml", "", []),
    ):
        (folder / name).write_text(text)
        ran = await run(BIN, "check", folder / name)
        assert ran.code == 78, f"{name}: exit code {ran.code}: {ran.errors}"
        assert name in ran.errors and "panicked" not in ran.errors, ran.errors
        for word in words:
            assert word in ran.errors, f"{name}: {ran.errors}"
    ran = await run(BIN, "check", folder / "missing.toml")
    assert ran.code == 78 and "missing.toml" in ran.errors, ran.errors


@case("the command line: help, usage, version", ("once",))
async def usage(t):
    for words, code in ((["--help"], 0), (["--version"], 0), ([], None), (["server", "--lisen", "x"], 2), (["nonsense"], 2)):
        ran = await run(BIN, *words, seconds=5)
        assert code is None or ran.code == code, f"{words}: exit code {ran.code}"
        assert ran.out or ran.err, f"{words}: says nothing"
        assert "panicked" not in ran.errors, ran.errors
    ran = await run(BIN, "server", "--lisen", "x", seconds=5)
    assert "--listen" in ran.errors, f"no hint: {ran.errors}"
    head = await run("bash", "-c", f"{BIN} --help | head -1", seconds=5)
    assert "panicked" not in head.errors, head.errors
