"""Many small requests, and a visitor who stops reading."""

import asyncio
import json
import pathlib
import re
import signal
import time

from case import ALL, ENTRIES, Skip, case
from process import run
from strait import LOAD


@case("h2load h1: 20,000 requests, none failed", ALL, seconds=60, flags=("--h1", "-c", "50"))
@case("h2load h2: 20,000 requests, none failed", ALL, seconds=60, flags=("-c", "10", "-m", "20"))
async def h2load(t, flags):
    ran = (await run("h2load", "-n", "20000", *flags, f"http://{t.world.fast}/fast/small", seconds=55)).ok()
    said = re.search(r"requests: .*", ran.text).group(0)
    assert "20000 succeeded, 0 failed, 0 errored" in said, said
    assert "status codes: 20000 2xx" in ran.text, ran.text
    t.note(re.search(r"([\d.]+ req/s)", ran.text).group(1))


async def load(address: str, requests: int, concurrency: int, *flags, seconds: float = 60) -> dict:
    """What the load generator found: right, mixed, lost, times."""
    ran = await run(LOAD, "run", *flags, "--requests", requests, "--concurrency", concurrency,
                    f"http://{address}/fast/digest", seconds=seconds)
    assert ran.text.startswith("{"), ran.errors
    found = json.loads(ran.text)
    found["errors"] = ran.errors
    return found


@case("100,000 requests h1, 200 at a time: none lost, none mixed", ENTRIES, seconds=120, flags=())
@case("100,000 requests h2, 200 at a time: none lost, none mixed", ("server-entry",), seconds=120, flags=("--h2",))
@case("10,000 requests h1, 200 at a time: none lost, none mixed", ("direct",), seconds=60, flags=(), requests=10_000)
async def digests(t, flags, requests=100_000):
    found = await load(t.world.fast, requests, 200, *flags, seconds=110)
    assert found["right"] == requests and not found["mixed"] and not found["lost"], str(found)[:1500]
    t.note(f"{requests / found['seconds']:.0f} req/s, p50 {found['p50_us'] / 1000:.1f} ms, p99 {found['p99_us'] / 1000:.1f} ms")


@case("1,500 connections while the node pauses: the kernel takes all of them, and all are answered", ENTRIES, seconds=60)
async def crowd(t):
    allowed = int(pathlib.Path("/proc/sys/net/core/somaxconn").read_text())
    if allowed < 1500:
        raise Skip(f"this system lets {allowed} connections wait")
    world = await t.alone(f"crowd-{t.mode}")
    node = world.pair.node[t.mode.removesuffix("-entry")]
    host, port = world.fast.split(":")
    node.signal(signal.SIGSTOP)
    try:
        # One for which there is no place is not taken before the node goes on.
        dialled = [asyncio.open_connection(host, int(port)) for _ in range(1500)]
        lines = await asyncio.wait_for(asyncio.gather(*dialled), 20)
    finally:
        node.signal(signal.SIGCONT)
    for _, writer in lines:
        writer.write(b"GET /fast/small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answers = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in lines)), 20)
    for _, writer in lines:
        writer.close()
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers), "not all were answered"
    await world.pair.clean()


@case("a visitor who stops reading 1 GiB: others do not notice, memory stays", ENTRIES, seconds=90)
async def stalled(t):
    world = await t.alone(f"stalled-{t.mode}")
    pair = world.pair
    # Warm first: connections made, allocator grown.
    await load(world.fast, 3000, 8)
    (await run("curl", "-sS", "-r", "0-99999999", "-o", "/dev/null", f"http://{world.files}/files/hole.bin")).ok()
    before = await load(world.fast, 3000, 8)
    memory = {side: node.rss() for side, node in pair.node.items()}
    visitor = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-o", "/dev/null", "--limit-rate", "20M", "--max-time", "80",
        f"http://{world.files}/files/hole.bin", stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await asyncio.sleep(0.5)
        visitor.send_signal(signal.SIGSTOP)
        # Time enough for everything in between to fill up.
        await asyncio.sleep(2)
        during = await load(world.fast, 3000, 8)
        grown = {side: (node.rss() - memory[side]) / 2**20 for side, node in pair.node.items()}
        t.note(f"grown {grown['server']:.1f} + {grown['client']:.1f} MiB, p99 {before['p99_us']} -> {during['p99_us']} us")
        assert not during["lost"] and not during["mixed"], str(during)[:1500]
        # A ratio with room for a noisy machine; being held up would cost seconds.
        assert during["p99_us"] < 4 * before["p99_us"] + 20_000, (before, during)
        for side, growth in grown.items():
            assert growth < 8, f"the {side} grew by {growth:.1f} MiB"
    finally:
        left = time.monotonic()
        visitor.send_signal(signal.SIGKILL)
        await visitor.wait()
    await pair.clean()
    t.note(f"gone after {(time.monotonic() - left) * 1000:.0f} ms")


@case("everything is let go of after all this", ENTRIES)
async def clean(t):
    await t.world.pair.clean()
