"""A limit of requests at once for one visitor, in every protocol."""

import asyncio

import stubs
from case import ENTRIES, case
from cases.grpc_calls import Probe, code_of
from cases.observe import NEAR
from cases.websocket import at
from curl import curl
from process import until

pb, _ = stubs.load()
ONE = '[limits]\nmax_exchanges_per_visitor = 1\n'
LIMITED = 'strait_errors_total{kind="client_limit",side="us"}'


class Held:
    """A request that stays open: its answer waits. `flags` are curl's."""

    def __init__(self, world, *flags: str, http: str = "1.1"):
        self.task = asyncio.ensure_future(curl(f"http://{world.http}/wait?ms=60000", *flags, http=http, seconds=60))

    async def leave(self) -> None:
        """Its visitor goes."""
        self.task.cancel()
        await asyncio.wait([self.task])


async def limited(t, name: str, **keys):
    """A pair that takes one request at a time of each visitor."""
    return await t.alone(f"{name}-{t.mode}", settings=ONE, entry_keys=keys)


async def opened(t, world, count: int) -> None:
    """Waits until so many requests are under way."""

    async def check():
        return (await world.pair.status(NEAR[t.mode]))["totals"]["open"] == count

    await until(f"{count} requests are open", check, 5)


@case("more requests than one visitor may have are refused, others are not", ENTRIES, seconds=40)
async def share(t):
    world = await limited(t, "share")
    held = Held(world)
    await opened(t, world, 1)
    for http in ("1.1", "2"):
        got = (await curl(f"http://{world.http}/hello", http=http)).is_ok(429)
        assert got.one("x-strait-error") == b"client_limit" and got.one("retry-after") == b"1", got.headers
        assert got.body.startswith(b"client_limit: "), got.body
    async with Probe(world.grpc) as probe:
        error = await code_of(probe.Ask(pb.Question(payload=b"q"), timeout=10))
        assert error.code().name == "RESOURCE_EXHAUSTED", error
    (await curl(f"http://{world.http}/hello", "--interface", "127.0.0.2")).is_ok()
    assert (await world.pair.metrics(NEAR[t.mode]))[LIMITED] == 3
    await held.leave()
    await opened(t, world, 0)
    # One after the other, in any protocol, as many as he likes.
    for _ in range(20):
        (await curl(f"http://{world.http}/hello")).is_ok()
    async with Probe(world.grpc) as probe:
        for _ in range(20):
            await probe.Ask(pb.Question(payload=b"q"), timeout=10)
    # A socket is a request for as long as it lives.
    async with at(world.ws, "echo") as ws:
        await ws.send("here")
        assert await ws.recv() == "here"
        (await curl(f"http://{world.http}/hello")).is_ok(429)
    await opened(t, world, 0)
    (await curl(f"http://{world.http}/hello")).is_ok()
    assert (await world.pair.metrics(NEAR[t.mode]))[LIMITED] == 4
    await world.pair.clean()


@case("behind a trusted proxy each of its visitors has a share", ENTRIES, seconds=40)
async def behind(t):
    world = await limited(t, "behind", trusted_proxies=["127.0.0.1"])

    async def status(visitor: str, path: str = "/hello") -> int:
        got = await curl(f"http://{world.http}{path}", "-H", f"X-Forwarded-For: {visitor}")
        return got.status

    held = [Held(world, "-H", f"X-Forwarded-For: {visitor}") for visitor in ("198.51.100.1", "2001:db8:0:1::1")]
    await opened(t, world, 2)
    statuses = {
        visitor: await status(visitor)
        for visitor in ("198.51.100.1", "198.51.100.2", "6.6.6.6, 198.51.100.1", "198.51.100.1, 198.51.100.2",
                        "2001:db8:0:1:ffff::2", "2001:db8:0:2::1")
    }
    assert list(statuses.values()) == [429, 200, 429, 200, 429, 200], statuses
    for one in held:
        await one.leave()
    await opened(t, world, 0)
    assert await status("198.51.100.1") == 200 and await status("2001:db8:0:1::9") == 200
    await world.pair.clean()
