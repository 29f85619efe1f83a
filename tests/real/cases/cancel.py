"""10,000 requests that are given up at some moment, beside backends that die."""

import asyncio
import signal

from case import ENTRIES, case
from cases.memory import Generator, backend_says, warm
from curl import curl
from process import until
from strait import Service

REQUESTS, AT_ONCE = 10_000, 100


async def resting(pair) -> dict[str, int]:
    """How many tasks each side has while nothing is asked of it."""
    return {side: (await pair.status(side))["totals"]["tasks"] for side in pair.node}


async def dying(t, process, port: int, name: str, stop: asyncio.Event) -> int:
    """Kills a backend and starts it again until told to stop; how often."""
    times = 0
    while not stop.is_set():
        await asyncio.sleep(0.4)
        process.signal(signal.SIGKILL)
        await process.ended(5)
        await asyncio.sleep(0.1)
        process, _ = await t.fast(name, port)
        times += 1
    return times


@case("10,000 requests of three protocols given up, backends dying: nothing is left after 5 s", ENTRIES, seconds=90)
async def given_up(t):
    _, sound = await t.fast(f"backend-sound-{t.mode}")
    frail, weak = await t.fast(f"backend-frail-{t.mode}")
    services = [
        Service(kind, port, path=path) for path, port in (("/sound", sound), ("/frail", weak)) for kind in ("http", "grpc")
    ]
    world = await t.alone(f"given-up-{t.mode}", services=services)
    pair = world.pair
    await warm(f"{world.fast}/sound")
    # The connections of the warm-up are idle and may be closed at any time.
    await pair.clean()
    before = await resting(pair)
    stop = asyncio.Event()
    killer = asyncio.ensure_future(dying(t, frail, weak, f"backend-frail-{t.mode}", stop))
    urls = [f"http://{world.fast}/{name}/of.Probe" for name in ("sound", "frail")]
    generator = await Generator.start("leave", REQUESTS, AT_ONCE, *urls)
    try:
        found = await generator.line(60)
    finally:
        stop.set()
        await generator.stop()
    deaths = await killer
    t.note(f"{found['begun']} answered, {found['refused']} refused, {found['silent']} left before, {deaths} backends died")
    # Most of them met a request under way, and the deaths were noticed.
    assert found["begun"] > REQUESTS / 5 and found["refused"] and found["silent"] and deaths >= 2, found
    await pair.clean(5)
    await until("no backend is asked for anything", lambda: _idle(sound, weak), 5, 0.1)
    rest: dict[str, int] = {}

    async def gone() -> bool:
        rest.update(await resting(pair))
        # What is more than before are connections to backends that wait for use.
        return all(rest[side] - before[side] <= 8 for side in before)

    try:
        await until("tasks have ended", gone, 5, 0.1)
    finally:
        t.note(f"tasks {before} -> {rest}")
    for name in ("sound", "frail"):
        (await curl(f"http://{world.fast}/{name}/small")).is_ok()
    for side in before:
        status = await pair.status(side)
        assert len(status["sessions"]) == 1 and status["totals"]["sessions"] == 1, "the tunnel was lost"


async def _idle(*ports: int) -> bool:
    """Whether backends have no more connections than those that wait for use."""
    return all([(await backend_says(port))["connections"] <= AT_ONCE for port in ports])
