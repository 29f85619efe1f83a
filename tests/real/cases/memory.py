"""Memory: what stalled visitors and idle sockets cost, and that it comes back."""

import asyncio
import contextlib
import json
import socket
import time

from case import ENTRIES, case
from process import run, until
from strait import LOAD, Service

MIB = 1 << 20
STALLED = 100
# What may stay resident of what a hundred stalled visitors held.
LEFT = 20 * MIB
SOCKETS, MESSAGES = 10_000, 5


async def backend_says(port: int) -> dict:
    """What a backend for load has counted."""
    return json.loads((await run("curl", "-sS", f"http://127.0.0.1:{port}/seen")).ok().text)


def memory(pair) -> dict[str, int]:
    """Resident bytes of each side."""
    return {side: node.rss() for side, node in pair.node.items()}


async def settled(what: str, read, seconds: float) -> dict:
    """Reads until nothing has changed for half a second."""
    last, since, end = await read(), time.monotonic(), time.monotonic() + seconds
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < end, f"{what}: still moving after {seconds:g} s"
        await asyncio.sleep(0.1)
        if (now := await read()) != last:
            last, since = now, time.monotonic()
    return last


async def warm(address: str) -> None:
    """Lets both sides make their connections and grow their pools."""
    ran = await run(LOAD, "run", "--requests", 3000, "--concurrency", STALLED, f"http://{address}/digest")
    ran.ok()
    whole = await run("curl", "-sS", "-o", "/dev/null", f"http://{address}/endless?n={32 * MIB}&note=warm")
    whole.ok()


def stalled_visitor(port: int, number: int) -> socket.socket:
    """Asks for 1 GiB and never reads. Its own buffer is small: what lies there is not ours."""
    visitor = socket.socket()
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    visitor.connect(("127.0.0.1", port))
    visitor.sendall(f"GET /endless?n={1 << 30}&note=stalled-{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return visitor


@case("100 visitors who never read 1 GiB: memory is bounded, little is pulled, all of it comes back", ENTRIES, seconds=60)
async def stalled(t):
    backend, port = await t.fast(f"backend-stalled-{t.mode}")
    world = await t.alone(f"hundred-stalled-{t.mode}", services=[Service("http", port)])
    pair = world.pair
    await warm(world.fast)
    before = memory(pair)
    visitors = [stalled_visitor(int(world.fast.split(":")[1]), number) for number in range(STALLED)]
    try:
        async def pulled() -> dict:
            found = (await backend_says(port))["pulled"]
            return {note: count for note, count in found.items() if note.startswith("stalled")}

        await until("every download has begun", lambda: _begun(pulled), 15, 0.1)
        most = max((await settled("what is pulled", pulled, 20)).values())
        during = memory(pair)
        grown = {side: (during[side] - before[side]) / MIB for side in before}
        t.note(f"grown {grown['server']:.1f} + {grown['client']:.1f} MiB, at most {most / MIB:.2f} MiB pulled for one")
        assert most <= 8 * MIB, f"{most} bytes were pulled for a visitor who does not read"
        for side, growth in grown.items():
            assert growth <= 100, f"the {side} grew by {growth:.1f} MiB"
        answer = await run(LOAD, "run", "--requests", 1000, "--concurrency", 8, f"http://{world.fast}/digest")
        assert json.loads(answer.text)["right"] == 1000, answer.text + answer.errors
    finally:
        for visitor in visitors:
            visitor.close()
    await pair.clean(5)
    after: dict[str, int] = {}

    def back() -> bool:
        after.update(memory(pair))
        return all(after[side] - before[side] <= LEFT for side in before)

    with contextlib.suppress(AssertionError):
        await until("memory is back", back, 10, 0.25)
    left = {side: (after[side] - before[side]) / MIB for side in before}
    t.note(f"left {left['server']:.1f} + {left['client']:.1f} MiB")
    assert back(), f"MiB that did not come back: {left}"


async def _begun(pulled) -> bool:
    found = await pulled()
    return len(found) == STALLED and all(found.values())


class Generator:
    """The load generator, told on its standard input when to go on."""

    def __init__(self, process: asyncio.subprocess.Process):
        self.process = process

    @classmethod
    async def start(cls, *words) -> "Generator":
        pipe = asyncio.subprocess.PIPE
        words = [str(word) for word in words]
        return cls(await asyncio.create_subprocess_exec(LOAD, *words, stdin=pipe, stdout=pipe, stderr=pipe))

    async def line(self, seconds: float) -> dict:
        """The next line that it prints."""
        line = await asyncio.wait_for(self.process.stdout.readline(), seconds)
        if not line:
            raise AssertionError((await self.process.stderr.read()).decode()[-1500:])
        return json.loads(line)

    async def go(self) -> None:
        """Lets it go on."""
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()

    async def stop(self) -> None:
        """Ends it if it has not ended."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@case("10,000 idle WebSockets over one tunnel: little memory each, then 50,000 right echoes", ENTRIES, seconds=90)
async def idle(t):
    _, port = await t.fast(f"backend-idle-{t.mode}")
    world = await t.alone(
        f"idle-{t.mode}", services=[Service("http", port)], settings="[limits]\nmax_requests = 12000\n"
    )
    pair = world.pair
    await warm(world.fast)
    before = memory(pair)
    generator = await Generator.start("sockets", SOCKETS, MESSAGES, f"http://{world.fast}/socket")
    try:
        assert (await generator.line(60))["open"] == SOCKETS
        for side in before:
            status = await pair.status(side)
            assert len(status["sessions"]) == 1 and status["totals"]["open"] == SOCKETS, status["totals"]
        during = memory(pair)
        each = {side: (during[side] - before[side]) / SOCKETS / 1024 for side in before}
        t.note(f"{each['server']:.1f} + {each['client']:.1f} KiB for an idle socket")
        for side, kibibytes in each.items():
            assert kibibytes <= 16, f"an idle socket costs the {side} {kibibytes:.1f} KiB"
        await generator.go()
        found = await generator.line(60)
        t.note(f"echoes took {found['seconds']:.1f} s")
        assert found["right"] == SOCKETS * MESSAGES, (found, (await generator.process.stderr.read()).decode()[-500:])
    finally:
        await generator.stop()
    await pair.clean(10)
    for side in before:
        assert len((await pair.status(side))["sessions"]) == 1, "the tunnel was lost"
