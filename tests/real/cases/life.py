"""Ends and beginnings: kill -9, restart, drain."""

import asyncio
import contextlib
import os
import random
import signal
import time

from case import ENTRIES, case
from cases.load import load
from curl import curl
from process import until

NEAR = {"server-entry": "server", "client-entry": "client"}
FAR = {"server-entry": "client", "client-entry": "server"}


async def visit(port: int, target: str, method: str = "GET", body: bytes = b"") -> tuple[int, float]:
    """One plain request: the status of its answer (0: none) and when it was whole."""
    status = 0
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError, IndexError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: visitor.test\r\n{length}\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        await reader.readexactly(length)
        status = int(head.split(" ")[1])
        writer.close()
    return status, time.monotonic()


async def in_flight(pair, side: str, count: int) -> None:
    """Waits until a side holds this many requests."""

    async def check():
        return (await pair.status(side))["totals"]["open"] >= count

    await until(f"{count} requests in flight", check, 15, 0.05)


@case("kill -9 of the far side with 1,000 requests in flight: all answered at once", ENTRIES, seconds=60)
async def kill(t):
    world = await t.alone(f"kill-{t.mode}")
    pair, near, far = world.pair, NEAR[t.mode], FAR[t.mode]
    port = pair.entry[near]
    visitors = [asyncio.ensure_future(visit(port, "/fast/wait?ms=40000")) for _ in range(1000)]
    await in_flight(pair, near, 1000)
    await in_flight(pair, far, 1000)
    killed = time.monotonic()
    pair.kill(far)
    done, late = await asyncio.wait(visitors, timeout=5)
    for visitor in late:
        visitor.cancel()
    assert not late, f"{len(late)} visitors still wait after 5 s"
    answers = [visitor.result() for visitor in done]
    slowest = max(when for _, when in answers) - killed
    statuses = {status: sum(1 for s, _ in answers if s == status) for status, _ in answers}
    assert set(statuses) == {502}, f"statuses {statuses}"
    t.note(f"slowest answer {slowest * 1000:.0f} ms")
    assert slowest < 1.0, f"the slowest answer came after {slowest:.2f} s"
    assert (await pair.status(near))["totals"]["open"] == 0, "requests are still held"

    # The side that died comes back.
    await pair.node[far].ended(5)
    if far == "client":
        (await curl(f"http://{world.http}/hello")).is_ok(503)
    began = time.monotonic()
    await pair.start(far)
    await serving(world, 10)
    took = time.monotonic() - began
    t.note(f"serving again after {took * 1000:.0f} ms")
    assert took < 1.5, f"serving again only after {took:.2f} s"


@case("a tunnel that breaks: no POST is executed twice, a GET at most twice", ENTRIES, seconds=60)
async def once_only(t):
    world = await t.alone(f"once-only-{t.mode}")
    pair, near, far = world.pair, NEAR[t.mode], FAR[t.mode]
    port, note, count = pair.entry[near], f"count-{t.mode}", 150
    visitors = []
    for number in range(count):
        # Half of the POSTs have no body: nothing of them was used up when the tunnel broke.
        body = b"x" * 1000 if number % 2 else b""
        for method in ("POST", "GET"):
            target = f"/count?note={note}&key={method}{number}&ms=1500"
            visitors.append(asyncio.ensure_future(visit(port, target, method, body)))
    # Held by the far side is not enough: each must have reached the backend, or there is
    # nothing that could be executed twice.
    async def all_executed():
        return len((await t.backends.seen()).get(note, {})) == 2 * count

    await until("all of them are executed", all_executed, 15, 0.05)
    pair.kill(far)
    await pair.node[far].ended(5)
    # Back before those that may be sent again have given up.
    await pair.start(far)
    statuses = [status for status, _ in await asyncio.gather(*visitors)]
    assert set(statuses) <= {200, 502}, f"statuses {({s: statuses.count(s) for s in set(statuses)})}"
    executed = (await t.backends.seen())[note]
    twice = [key for key, times in executed.items() if times > (1 if key.startswith("POST") else 2)]
    assert len(executed) == 2 * count and not twice, (len(executed), twice[:10])
    again = sum(1 for key, times in executed.items() if times == 2)
    t.note(f"{again} of {count} GETs were sent again, {statuses.count(200)} answered")


@case("visitors who leave at any moment leave nothing behind", ENTRIES, seconds=60)
async def leavers(t):
    world = await t.alone(f"leavers-{t.mode}")
    pair = world.pair
    port = pair.entry[NEAR[t.mode]]
    dice = random.Random(4)
    plans = [(dice.choice(LEAVERS), dice.random() * 0.05) for _ in range(3000)]

    async def leave(request: bytes, after: float):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await asyncio.sleep(after)
        # Half of them with a reset.
        if after > 0.025:
            writer.transport.abort()
        writer.close()

    for start in range(0, len(plans), 200):
        await asyncio.gather(*(leave(*plan) for plan in plans[start : start + 200]))
    await pair.clean(5)
    far = pair.node[FAR[t.mode]]

    def unused() -> bool:
        # Only connections kept for the next request may be left, 256 to a backend.
        return len([fd for fd in os.listdir(f"/proc/{far.pid}/fd")]) < 256 * 2 + 50

    await until("the backends' connections are closed", unused, 10)
    (await curl(f"http://{world.http}/hello")).is_ok()
    assert "panicked" not in "".join(node.log.read_text() for node in pair.node.values())


LEAVERS = [
    b"GET /bytes?n=2000000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /wait?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /fast/small HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 300_000,
    b"POST /digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 500,
    b"GET /ws/ticks?note=leavers HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n",
]


async def serving(world, seconds: float) -> None:
    """Waits until a visitor is served."""

    async def check():
        got = await curl(f"http://{world.http}/hello", seconds=2)
        return got.status == 200 and got.body == b"hello\n"

    await until("a visitor is served again", check, seconds, 0.02)


@case("the server is killed and restarted: the client comes back by itself", ENTRIES, seconds=60)
async def reconnect(t):
    world = await t.alone(f"reconnect-{t.mode}")
    pair, longest = world.pair, 0.0
    for _ in range(3):
        pair.kill("server")
        await pair.node["server"].ended(5)
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await pair.start("server")
        await serving(world, 15)
        longest = max(longest, time.monotonic() - began)
    t.note(f"longest {longest * 1000:.0f} ms")
    assert longest < 1.5, f"{longest:.2f} s"
    assert pair.node["client"].alive


@case("SIGTERM of the server: what it accepted is answered, exit 0", ENTRIES, seconds=60, side="server")
@case("SIGTERM of the client: what it accepted is answered, exit 0", ENTRIES, seconds=60, side="client")
async def drain(t, side):
    world = await t.alone(f"drain-{side}-{t.mode}")
    pair, near = world.pair, NEAR[t.mode]
    port = pair.entry[near]
    visitors = [asyncio.ensure_future(visit(port, "/fast/wait?ms=2500")) for _ in range(200)]
    await in_flight(pair, near, 200)
    download = asyncio.ensure_future(curl(f"http://{world.http}/bytes?n=12000000", "--limit-rate", "6M"))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    pair.node[side].signal(signal.SIGTERM)
    statuses = [status for status, _ in await asyncio.gather(*visitors)]
    assert statuses == [200] * 200, f"statuses {({s: statuses.count(s) for s in set(statuses)})}"
    got = (await download).is_ok()
    assert len(got.body) == 12_000_000, len(got.body)
    code = await pair.node[side].ended(31)
    t.note(f"ended {time.monotonic() - began:.1f} s after the signal")
    assert code == 0, f"exit code {code}"
    assert time.monotonic() - began < 15, "it waited for nothing"


@case("SIGTERM of the client under load: no accepted request is lost", ("server-entry",), seconds=60)
async def drain_load(t):
    world = await t.alone(f"drain-load-{t.mode}")
    pair = world.pair
    loading = asyncio.ensure_future(load(world.fast, 20_000, 50))
    await asyncio.sleep(0.3)
    pair.node["client"].signal(signal.SIGTERM)
    code = await pair.node["client"].ended(31)
    assert code == 0, f"exit code {code}"
    await pair.start("client")
    found = await loading
    # While no client is there visitors are refused, and told so; nothing else may happen.
    other = [line for line in found["errors"].splitlines() if "503" not in line]
    t.note(f"{found['right']} answered, {found['lost']} refused while there was no client")
    assert not found["mixed"] and not other, (found["mixed"], other[:10])
    assert found["right"] + found["lost"] == 20_000, str(found)[:500]


@case("a second signal ends at once", ("once",), seconds=30)
async def impatient(t):
    from strait import Service

    pair = await t.pair("impatient", behind_client=[Service("http", t.backends.fast)])
    await pair.up()
    waiting = asyncio.ensure_future(visit(pair.entry["server"], "/fast/wait?ms=25000"))
    await in_flight(pair, "server", 1)
    pair.node["server"].signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    assert pair.node["server"].alive, "the first signal did not wait for the request"
    pair.node["server"].signal(signal.SIGTERM)
    await pair.node["server"].ended(2)
    await waiting


@case("an address in use is named, exit 1", ("once",), seconds=20)
async def in_use(t):
    pair = await t.pair("in-use")
    pair.entry["server"] = t.backends.http
    node = await pair.start("server")
    code = await node.ended(5)
    assert code == 1, f"exit code {code}: {node.tail()}"
    assert str(t.backends.http) in node.tail() and "panicked" not in node.tail(), node.tail()
