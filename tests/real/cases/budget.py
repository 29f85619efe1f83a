"""A node at the limit of its memory budget."""

from contextlib import AsyncExitStack

from websockets.exceptions import InvalidStatus

from case import ENTRIES, case
from cases.http_edges import _seen
from cases.websocket import at
from curl import curl
from process import OUT, run, until

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


async def limited(t, name: str):
    """A pair of its own whose sides have BUDGET bytes each."""
    files = {}
    for side in ("server", "client"):
        files[side] = OUT / f"{name}-{t.mode}-{side}.toml"
        files[side].write_text(LIMITS)
    return await t.alone(
        f"{name}-{t.mode}",
        server_flags=["--config", str(files["server"])],
        client_flags=["--config", str(files["client"])],
    )


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
