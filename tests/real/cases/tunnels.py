"""Several tunnels of one client, and several threads."""

import asyncio
import contextlib
import json

from case import ENTRIES, ONCE, case
from cases.life import FAR, NEAR
from cases.load import load
from curl import curl
from process import free_port, run, until
from strait import LOAD, Service


async def frames(pair, side: str) -> dict[int, int]:
    """What each tunnel has sent so far, by its number."""
    return {s["tunnel"]: s["frames_out"] for s in (await pair.status(side))["sessions"]}


class Relay:
    """Passes connections on to a port, until it is told to cut the one that was made last."""

    def __init__(self, port: int):
        self.to, self.port = port, free_port()
        self.lines: list[list[asyncio.StreamWriter]] = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.line, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_):
        self.server.close()
        while self.lines:
            self.cut()

    async def line(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            # Nobody listens there yet: whoever dials is to notice, and to come again.
            writer.transport.abort()
            return
        self.lines.append([writer, far_writer])
        await asyncio.gather(self.copy(reader, far_writer), self.copy(far_reader, writer))

    async def copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

    def cut(self) -> None:
        """Both ends at once, as a network does."""
        for writer in self.lines.pop():
            writer.transport.abort()


@case("two tunnels: both carry, none of 20,000 requests is lost or mixed", ENTRIES, seconds=60)
async def both(t):
    world = await t.alone(f"tunnels-{t.mode}", tunnels=2)
    pair, near = world.pair, NEAR[t.mode]
    assert [sorted(await frames(pair, side)) for side in ("server", "client")] == [[0, 1], [0, 1]]
    before = await frames(pair, near)
    found = await load(world.fast, 20_000, 100, seconds=50)
    assert found["right"] == 20_000 and not found["mixed"] and not found["lost"], str(found)[:1500]
    after = await frames(pair, near)
    carried = [after[number] - before[number] for number in (0, 1)]
    assert min(carried) > 5_000, f"one tunnel has much less to do: {carried} frames"
    await pair.clean()
    t.note(f"{carried[0]} + {carried[1]} frames")


@case("two tunnels: one is cut, its requests end at once, the other carries on, and it comes back", ENTRIES, seconds=60)
async def one_is_cut(t):
    behind = {f"behind_{FAR[t.mode]}": [Service("http", t.backends.fast, path="/fast")]}
    pair = await t.pair(f"cut-{t.mode}", tunnels=2, **behind)
    async with Relay(pair.tunnel) as relay:
        pair.dial = relay.port
        await pair.up()
        address = f"127.0.0.1:{pair.entry[NEAR[t.mode]]}"
        url = f"http://{address}/fast/wait?ms=4000"
        safe = [asyncio.ensure_future(curl(url)) for _ in range(8)]
        unsafe = [asyncio.ensure_future(curl(url, "-d", "once")) for _ in range(8)]

        async def both_have_some():
            sessions = (await pair.status(NEAR[t.mode]))["sessions"]
            return sum(s["open_ours"] for s in sessions) == 16 and all(s["open_ours"] > 4 for s in sessions)

        await until("both tunnels have requests", both_have_some, 5)
        relay.cut()
        # What is safe is asked again through the other one.
        answers = [answer.status for answer in await asyncio.gather(*safe)]
        assert set(answers) == {200}, answers
        answers = [answer.status for answer in await asyncio.gather(*unsafe)]
        assert set(answers) == {200, 502}, f"{answers}: those of one tunnel and no others"
        # At no moment nobody answers.
        for _ in range(20):
            assert (await curl(f"http://{address}/fast/small")).status == 200
        await pair.joined(10)
        before = await frames(pair, NEAR[t.mode])
        found = await load(address, 2_000, 40, seconds=30)
        assert found["right"] == 2_000, str(found)[:1500]
        after = await frames(pair, NEAR[t.mode])
        assert all(after[number] - before[number] > 200 for number in (0, 1)), (before, after)
        totals = (await pair.status("client"))["totals"]
        assert totals["reconnects"] == 1, totals
        await pair.clean()
        await pair.down()


@case("threads: a visitor finds the services of every client, whichever threads both are on", ONCE, seconds=60)
async def crossing(t):
    pair = await t.pair("threads", server_flags=["--threads", "3"], behind_client=[Service("http", t.backends.fast, path="/fast")])
    await pair.up()
    other = await t.pair("threads-other", behind_client=[Service("http", t.backends.ws, path="/ws"), Service("grpc", t.backends.grpc)])
    other.tunnel = pair.tunnel
    other.client_flags = ["--id", "other"]
    await other.start("client")

    async def joined():
        return len((await pair.status("server"))["sessions"]) == 2

    await until("both clients are there", joined, 5)
    address = f"127.0.0.1:{pair.entry['server']}"
    loads = [load(address, 5_000, 20, *flags, seconds=40) for flags in ((), ("--h2",))]
    sockets = run(LOAD, "sockets", 40, 20, f"http://{address}/ws/echo", stdin=b"\n", seconds=40)
    *found, echoes = await asyncio.gather(*loads, sockets)
    for one in found:
        assert one["right"] == 5_000 and not one["mixed"] and not one["lost"], str(one)[:1500]
    t.note(json.dumps(json.loads(echoes.ok().text.splitlines()[-1])))
    await pair.clean()
