"""Visitors who send what costs them nothing: their connection ends, and nobody else notices."""

import asyncio
import contextlib
import json
import socket
import struct
import sys
import time

import frames
from abuser import FLOODS
from case import ENTRIES, case
from cases.memory import MIB, memory, warm
from cases.smuggling import unharmed
from process import HERE, run, until
from strait import Service

SECONDS = 10
ESTABLISHED = 1
SLOWEST, GROWTH = 0.5, 32 * MIB
TIMES = '[timeouts]\nfirst_byte = "1s"\nheaders = "1s"\nbody_idle = "1s"\nanswer_idle = "1s"\nkeep_alive_idle = "1s"\n'


class Bystander:
    """Another visitor: one small request after the other on one connection, each timed."""

    def __init__(self, port: int):
        self.port, self.slowest, self.answered = port, 0.0, 0
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while True:
                began = time.monotonic()
                writer.write(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(size)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.answered += 1
                await asyncio.sleep(0.005)
        finally:
            writer.close()

    async def stop(self) -> None:
        """Ends; fails when a request was lost."""
        if self.task.done():
            self.task.result()
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


class Guarded:
    """A pair under attack: what others see of it meanwhile, and what is left of it."""

    def __init__(self, t, pair):
        self.t, self.pair = t, pair
        self.port = pair.entry[t.mode.split("-")[0]]
        self.before, self.most = memory(pair), {}

    async def during(self, attack):
        """The attack's outcome, beside another visitor."""
        bystander = Bystander(self.port)
        attack = asyncio.ensure_future(attack)
        try:
            while not attack.done():
                now = memory(self.pair)
                self.most = {side: max(self.most.get(side, 0), now[side]) for side in now}
                await asyncio.wait([attack], timeout=0.05)
        finally:
            await bystander.stop()
        assert bystander.answered and bystander.slowest <= SLOWEST, f"{bystander.slowest:.3f} s, {bystander.answered}"
        grown = {side: self.most[side] - self.before[side] for side in self.before}
        assert max(grown.values()) <= GROWTH, f"grown by {grown}"
        return attack.result(), bystander.slowest, max(grown.values()) / MIB

    async def after(self) -> None:
        """Nothing is left of it, and memory is back."""
        await unharmed(self.pair)

        def back() -> bool:
            now = memory(self.pair)
            return all(now[side] - self.before[side] <= GROWTH / 2 for side in now)

        await until("memory is back", back, 10, 0.1)


async def guarded(t, name: str) -> Guarded:
    """A pair of its own before a backend that takes anything."""
    world = await t.alone(f"{name}-{t.mode}", services=[Service("http", t.backends.fast)], settings=TIMES)
    await warm(world.fast)
    await world.pair.clean()
    return Guarded(t, world.pair)


# The longest of the times above, twice where a connection is first asked to leave, and what a busy
# machine adds.
LET_GO = 8
HEAD = b"GET /small HTTP/1.1\r\nHost: a\r\n"
UPLOAD = b"POST /digest HTTP/1.1\r\nHost: a\r\n"
CHUNKED = UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
PREFACE = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0)
NO_WINDOW = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, struct.pack(">HI", frames.INITIAL_WINDOW_SIZE, 0))
POST2 = frames.headers(1, frames.request(b"/digest", b"POST"), False)
ENDLESS = frames.headers(1, frames.request(b"/endless?n=1000000000"))
UNFINISHED = frames.frame(frames.HEADERS, frames.END_STREAM, 1, frames.block(frames.request(b"/small")))

# What a slow visitor sends at once, what it sends then again and again, and whether it reads.
SLOW = {
    "says nothing": (b"", b"", True),
    "drips its request line": (b"GET /", b"x", True),
    "drips a field": (HEAD + b"X: ", b"y", True),
    "drips fields": (HEAD, b"X: y\r\n", True),
    "drips its second head": (HEAD + b"\r\n" + HEAD, b"X: y\r\n", True),
    "stops in its body": (UPLOAD + b"Content-Length: 10\r\n\r\nhello", b"", True),
    "stops between chunks": (CHUNKED, b"", True),
    "drips an extension": (CHUNKED + b"5;", b"x", True),
    "drips trailers": (CHUNKED + b"0\r\n", b"X: y\r\n", True),
    "reads nothing": (b"GET /endless?n=1000000000 HTTP/1.1\r\nHost: a\r\n\r\n", b"", False),
    "stops in the preface of HTTP/2": (b"PRI * HTTP/2", b"", True),
    "asks nothing by HTTP/2": (PREFACE, b"", True),
    "stops in a head by HTTP/2": (PREFACE + UNFINISHED, b"", True),
    "stops in its body by HTTP/2": (PREFACE + POST2 + frames.data(1, b"hello", False), b"", True),
    "reads nothing by HTTP/2": (PREFACE + ENDLESS, b"", False),
    "gives no window by HTTP/2": (NO_WINDOW + ENDLESS, b"", True),
}


async def slow(port: int, first: bytes, then: bytes, reads: bool) -> float:
    """Seconds until a slow visitor's connection has ended."""
    visitor = socket.socket()
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    visitor.setblocking(False)
    loop = asyncio.get_running_loop()
    with visitor:
        await loop.sock_connect(visitor, ("127.0.0.1", port))
        await loop.sock_sendall(visitor, first)
        began = time.monotonic()
        while time.monotonic() - began < LET_GO:
            await asyncio.sleep(0.05)
            try:
                if then:
                    await loop.sock_sendall(visitor, then)
                if not reads:
                    # A reset is seen without reading; a polite end would wait behind the rest.
                    if visitor.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED:
                        break
                    continue
                while visitor.recv(1 << 16):
                    pass
                break
            except BlockingIOError:
                continue
            except OSError:
                break
        return time.monotonic() - began


@case("slow visitors are let go, and nobody else notices", ENTRIES, seconds=60)
async def let_go(t):
    guard = await guarded(t, "slow")
    attack = asyncio.gather(*(slow(guard.port, *how) for how in SLOW.values()))
    took, slowest, grown = await guard.during(attack)
    t.note(f"after {min(took):.1f} to {max(took):.1f} s; slowest other request {slowest * 1000:.0f} ms, RSS + {grown:.1f} MiB")
    late = {name: round(seconds, 1) for name, seconds in zip(SLOW, took) if seconds >= LET_GO}
    assert not late, f"not let go: {late}"
    # Nobody was thrown out before their time.
    assert min(took) > 0.5, dict(zip(SLOW, took))
    await guard.after()


@case("HTTP/2 floods end the visitor's connection, and nobody else notices", ENTRIES, seconds=150)
async def floods(t):
    guard = await guarded(t, "floods")
    slowest, grown = 0.0, 0.0
    for name in FLOODS:
        async def attack(name=name) -> dict:
            ran = await run(sys.executable, HERE / "abuser.py", guard.port, name, SECONDS, seconds=SECONDS + 10)
            return json.loads(ran.ok().text)

        found, late, more = await guard.during(attack())
        assert found["ended"], f"{name}: the connection goes on after {found}"
        slowest, grown = max(slowest, late), max(grown, more)
    t.note(f"{len(FLOODS)} floods; slowest other request {slowest * 1000:.0f} ms, RSS + {grown:.1f} MiB")
    await guard.after()
