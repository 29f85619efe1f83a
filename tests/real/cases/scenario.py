"""The scenario of the founding design, and everything at once in both directions."""

import asyncio
import random
import time

import grpc
from websockets.asyncio.client import connect

import stubs
from case import ALL, case
from cases.grpc_calls import OPTIONS, Probe
from cases.websocket import at, socket
from curl import curl
from process import OUT, run
from strait import Service

pb, services = stubs.load()


@case("founding scenario: A and D return while B and C go on", ALL)
async def founding(t):
    # Through one stream, whatever other cases have.
    world = await t.alone(f"founding-{t.mode}")
    order: list[str] = []
    chunks: list[int] = []
    frames: list[str] = []
    done = asyncio.Event()

    async def stream_b():
        async with Probe(world.grpc) as probe:
            call = probe.Chat(timeout=20)
            number = 0
            while not (done.is_set() and number >= 100):
                await call.write(pb.Question(count=number, payload=b"b" * 2000))
                reply = await call.read()
                assert reply.text == "ok", f"the backend saw chunk {reply.number} out of order"
                chunks.append(reply.number)
                number += 1
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
        order.append("B")

    async def socket_c():
        async with at(world.ws, "numbers") as ws:
            number = 0
            while not (done.is_set() and number >= 100):
                await ws.send(f"frame {number}")
                frames.append(await asyncio.wait_for(ws.recv(), 5))
                number += 1
        order.append("C")

    async def under_way():
        while len(chunks) < 20 or len(frames) < 20:
            await asyncio.sleep(0.005)

    async def short(name: str):
        (await curl(f"http://{world.http}/hello")).is_ok()
        order.append(name)

    a = asyncio.ensure_future(short("A"))
    b, c = asyncio.ensure_future(stream_b()), asyncio.ensure_future(socket_c())
    watch = asyncio.ensure_future(under_way())
    await asyncio.wait([watch, b, c], return_when=asyncio.FIRST_COMPLETED, timeout=10)
    assert watch.done(), "B and C did not get under way"
    await a
    before = len(chunks), len(frames)
    await short("D")
    if world.pair:
        for side in ("server", "client"):
            sessions = (await world.pair.status(side))["sessions"]
            assert len(sessions) == 1, f"{len(sessions)} tunnels instead of one"
    await asyncio.sleep(0.3)
    assert len(chunks) > before[0] and len(frames) > before[1], "D's answer stopped B or C"
    assert order == ["A", "D"], order
    done.set()
    await asyncio.gather(b, c)
    assert sorted(order[2:]) == ["B", "C"], order
    assert chunks == list(range(len(chunks))), "B's chunks are out of order"
    assert frames == [f"answer {n}" for n in range(len(frames))], "C's frames are out of order"
    t.note(f"{len(chunks)} chunks and {len(frames)} frames meanwhile")


SIZE = 300_000
EACH = 50  # of each protocol at each entry: 300 in all


class Door:
    """One entry, and the host behind the other end of the tunnel."""

    def __init__(self, host: str, port: int):
        self.host, self.port = host, port

    async def http(self, bodies: list[bytes]) -> None:
        """One curl that uploads and downloads everything at once."""
        folder = OUT / f"mixed-{self.host}"
        folder.mkdir(exist_ok=True)
        blocks = []
        for number, body in enumerate(bodies):
            (folder / f"{number}.up").write_bytes(body)
            blocks.append(
                f'url = "http://{self.host}:{self.port}/echo?number={number}"\n'
                f'connect-to = "{self.host}:{self.port}:127.0.0.1:{self.port}"\n'
                f'upload-file = "{folder}/{number}.up"\nrequest = "POST"\nheader = "Expect:"\n'
                f'output = "{folder}/{number}.down"\nlimit-rate = "300k"\nmax-time = 40\nfail\n'
            )
        (folder / "curl.conf").write_text("next\n".join(blocks))
        flags = ["--parallel", "--parallel-immediate", "--parallel-max", str(len(bodies)), "--http1.1"]
        (await run("curl", "-sS", *flags, "-K", folder / "curl.conf", seconds=50)).ok()
        for number, body in enumerate(bodies):
            got = (folder / f"{number}.down").read_bytes()
            assert got == body, f"http {number} at {self.host}: {len(got)} bytes, not the ones sent"

    async def grpc(self, bodies: list[bytes]) -> None:
        """Streams of both directions on one channel."""
        options = [*OPTIONS, ("grpc.default_authority", self.host)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options) as channel:
            stub = services.ProbeStub(channel)

            async def one(number: int, body: bytes):
                call, got = stub.Chat(timeout=45), b""
                for at in range(0, SIZE, 30_000):
                    await call.write(pb.Question(count=at // 30_000, payload=body[at : at + 30_000]))
                    reply = await call.read()
                    assert reply.text == "ok", "messages out of order"
                    got += reply.payload
                    await asyncio.sleep(0.05)
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF
                assert got == body, f"grpc {number} at {self.host}: not the bytes sent"

            await asyncio.gather(*(one(n, body) for n, body in enumerate(bodies)))

    async def websocket(self, bodies: list[bytes]) -> None:
        """A socket for each body, sent in ten messages."""

        async def one(number: int, body: bytes):
            url = f"ws://{self.host}/ws/echo"
            async with connect(url, host="127.0.0.1", port=self.port, compression=None, ping_interval=None,
                               open_timeout=20) as ws:
                for at in range(0, SIZE, 30_000):
                    await ws.send(body[at : at + 30_000])
                    got = await asyncio.wait_for(ws.recv(), 30)
                    assert got == body[at : at + 30_000], f"websocket {number} at {self.host}: not the bytes sent"
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(one(n, body) for n, body in enumerate(bodies)))

    def everything(self, seed: int):
        """All of it at once."""
        source = random.Random(seed)
        bodies = [[source.randbytes(SIZE) for _ in range(EACH)] for _ in range(3)]
        return [self.http(bodies[0]), self.grpc(bodies[1]), self.websocket(bodies[2])]


@case("300 exchanges at once, three protocols, both directions, one tunnel", ("once",), seconds=90)
async def mixed(t):
    def offered(host: str):
        return [
            Service("http", t.backends.http, host=host),
            Service("http", t.backends.ws, host=host, path="/ws"),
            Service("grpc", t.backends.grpc, host=host),
        ]

    pair = await t.pair("mixed", behind_client=offered("inner.test"), behind_server=offered("outer.test"))
    await pair.up()
    doors = [Door("inner.test", pair.entry["server"]), Door("outer.test", pair.entry["client"])]
    most = {"server": 0, "client": 0}
    began = time.monotonic()

    async def watch():
        while True:
            for side in most:
                most[side] = max(most[side], (await pair.status(side))["totals"]["open"])
            await asyncio.sleep(0.1)

    watching = asyncio.ensure_future(watch())
    try:
        await asyncio.gather(*(work for seed, door in enumerate(doors) for work in door.everything(seed)))
    finally:
        watching.cancel()
    took = time.monotonic() - began
    t.note(f"{2 * 6 * EACH * SIZE / took / 1e6:.0f} MB/s, most at once {most}")
    assert max(most.values()) >= 250, f"they were not all at once: {most}"
    for side in most:
        sessions = (await pair.status(side))["sessions"]
        assert len(sessions) == 1, f"{len(sessions)} tunnels instead of one"
    await pair.clean()


@case("mixed load straight at the backends", ("direct",), seconds=60)
async def mixed_direct(t):
    http = Door("inner.test", t.backends.http)
    rpc = Door("inner.test", t.backends.grpc)
    ws = Door("inner.test", t.backends.ws)
    plan = http.everything(1), rpc.everything(2), ws.everything(3)
    chosen = [plan[0][0], plan[1][1], plan[2][2]]
    for works in plan:
        for work in works:
            if work not in chosen:
                work.close()
    await asyncio.gather(*chosen)


