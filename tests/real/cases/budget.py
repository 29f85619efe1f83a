"""A node at the limit of its memory budget."""

import asyncio
import time
from contextlib import AsyncExitStack, suppress

from websockets.exceptions import InvalidStatus

from case import ENTRIES, case
from cases.http_edges import _seen
from cases.life import FAR, NEAR
from cases.websocket import at
from curl import curl
from process import OUT, run, until
from strait import Service

BUDGET = 1 << 20
LIMITS = f"""
[limits]
session_budget = "{BUDGET >> 10}KiB"
process_budget = "{BUDGET >> 10}KiB"
initial_window = "64KiB"
max_window = "64KiB"
"""


async def refused(pair) -> float:
    """What the budgets of both sides have refused."""
    total = 0.0
    for side in ("server", "client"):
        for name, value in (await pair.metrics(side)).items():
            if name.startswith("strait_session_refused_total{") and 'limit="budget"' in name:
                total += value
    return total


def limits(t, name: str) -> dict[str, list[str]]:
    """What gives each side of a pair BUDGET bytes."""
    flags = {}
    for side in ("server", "client"):
        file = OUT / f"{name}-{t.mode}-{side}.toml"
        file.write_text(LIMITS)
        flags[f"{side}_flags"] = ["--config", str(file)]
    return flags


async def limited(t, name: str):
    """A pair of its own whose sides have BUDGET bytes each."""
    return await t.alone(f"{name}-{t.mode}", **limits(t, name))


@case("a full memory budget refuses what is new, goes on with what is open, and empties again", ENTRIES, seconds=60)
async def full(t):
    world = await limited(t, "memory")
    pair, note = world.pair, f"memory-{t.mode}"
    assert await refused(pair) == 0
    async with AsyncExitStack() as stack:
        sockets = []
        try:
            while len(sockets) < 400:
                sockets.append(await stack.enter_async_context(at(world.ws, "echo", compression=None)))
        except InvalidStatus as error:
            answer = error.response
        else:
            raise AssertionError(f"{len(sockets)} sockets fit {BUDGET} bytes")
        assert answer.status_code == 503, answer
        assert answer.headers["x-strait-error"] == "overloaded", answer
        # As the reference says: 4096 of credit and 512 for each that is idle.
        assert len(sockets) <= BUDGET // 4608, f"{len(sockets)} sockets fit {BUDGET} bytes"
        assert len(sockets) > BUDGET // 4608 // 2, f"only {len(sockets)} sockets fit {BUDGET} bytes"

        big = ["-H", "x-fill: " + "f" * 4000]
        got = (await curl(f"http://{world.http}/wait?ms=0&note={note}", *big)).is_ok(503)
        assert got.one("x-strait-error") == b"overloaded" and got.one("retry-after"), got.headers
        assert not await _seen(t, f"{note}:began"), "what was refused reached the backend"

        # What is open goes on.
        for ws in (sockets[0], sockets[-1]):
            await ws.send("still here")
            assert await ws.recv() == "still here"
        assert await refused(pair) >= 2, await pair.metrics("server")
        for side in ("server", "client"):
            metrics = await pair.metrics(side)
            peer = next(name.split('"')[1] for name in metrics if name.startswith("strait_session_budget_bytes{"))
            assert metrics["strait_budget_bytes"] == BUDGET, metrics
            assert metrics[f'strait_session_budget_bytes{{peer="{peer}"}}'] == BUDGET, metrics
            used = metrics["strait_budget_used_bytes"]
            assert 0.8 * BUDGET < used <= BUDGET, f"the {side} uses {used} of {BUDGET}"
            assert used == metrics[f'strait_session_budget_used_bytes{{peer="{peer}"}}'], metrics
            credit = metrics[f'strait_session_credit_outstanding_bytes{{peer="{peer}"}}']
            assert 0 < credit < used, f"the {side} has given {credit}"
        t.note(f"{len(sockets)} sockets in {BUDGET >> 10} KiB")

        # One leaves, and there is a place: a refusal is safe to try again.
        for ws in sockets[:20]:
            await ws.close()

        async def fits():
            return (await curl(f"http://{world.http}/wait?ms=0&note={note}", *big)).status == 200

        await until("the refused request is served", fits, 5)
        assert await _seen(t, f"{note}:began")
    await pair.clean()


@case("500 uploads at once beyond 1 MiB of memory wait for room, and all are answered", ENTRIES, seconds=60)
async def burst(t):
    world = await limited(t, "burst")
    body = OUT / "burst-body"
    body.write_bytes(b"b" * 16384)
    for flags in (("--h1", "-c", 500), ("-c", 10, "-m", 50)):
        ran = await run("h2load", "-n", 10_000, *flags, "-d", body, f"http://{world.fast}/fast/digest", seconds=25)
        assert "10000 succeeded, 0 failed, 0 errored" in ran.ok().text, ran.text
    await world.pair.clean()
    assert await refused(world.pair) == 0


@case("uploads that their service does not read leave room for others", ENTRIES, seconds=60)
async def unread(t):
    held = []

    async def never_reads(reader, writer):
        held.append((reader, writer))
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()

    # It reads little ahead.
    service = await asyncio.start_server(never_reads, "127.0.0.1", 0, limit=4096)
    port = service.sockets[0].getsockname()[1]
    services = [Service("http", port, path="/unread"), Service("http", t.backends.fast, path="/fast")]
    pair = await t.pair(f"unread-{t.mode}", **{f"behind_{FAR[t.mode]}": services}, **limits(t, "unread"))
    await pair.up()
    address = f"127.0.0.1:{pair.entry[NEAR[t.mode]]}"
    host, entry = address.split(":")
    uploads = []
    try:
        for _ in range(30):
            _, writer = await asyncio.open_connection(host, int(entry))
            writer.write(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
            uploads.append(writer)

        async def all_are_there():
            sessions = (await pair.status(NEAR[t.mode]))["sessions"]
            return sum(session["open_ours"] for session in sessions) == len(uploads)

        await until("all uploads are under way", all_are_there, 10)
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            (await curl(f"http://{address}/fast/small")).is_ok(200)
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1, f"one of them waited {slowest:.2f} s for room"
    finally:
        for writer in uploads + [writer for _, writer in held]:
            writer.transport.abort()
        service.close()
    await pair.clean()
    await pair.down()
    t.note(f"beside {len(uploads)} of them, at most {slowest * 1000:.0f} ms")
