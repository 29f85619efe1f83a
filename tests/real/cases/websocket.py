"""WebSocket with the `websockets` library on both ends."""

import asyncio
import hashlib
import json
import random
from urllib.parse import quote

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from case import case
from process import until


def at(address: str, path: str, **options):
    """A socket to the backend's path, by way of an address."""
    options.setdefault("max_size", 64 << 20)
    return connect(f"ws://{address}/ws/{path}", open_timeout=10, ping_interval=None, close_timeout=5, **options)


def socket(t, path: str, **options):
    """A socket to the backend's path, in the mode of the case."""
    return at(t.world.ws, path, **options)


async def seen(t, key: str):
    """What the backend noticed."""
    return (await t.backends.seen(t.backends.ws)).get(key)


@case("websocket: text and binary come back")
async def echo(t):
    async with socket(t, "echo") as ws:
        for message in ("hello", "", "grüße 🚀", b"", b"\x00\xff" * 10, "x" * 125, "x" * 126, b"y" * 65_535, b"z" * 65_536):
            await ws.send(message)
            assert await asyncio.wait_for(ws.recv(), 5) == message


@case("websocket: messages of 1 MiB and more")
async def large(t):
    async with socket(t, "echo", compression=None) as ws:
        for size in (1 << 20, 5_000_001, 12 << 20):
            message = random.Random(size).randbytes(size)
            await ws.send(message)
            assert await asyncio.wait_for(ws.recv(), 10) == message, f"{size} bytes came back changed"


@case("websocket: many in flight both ways, in order")
async def flood(t):
    count = 2000
    async with socket(t, "echo", compression=None) as ws:

        async def feed():
            for number in range(count):
                await ws.send(f"{number}:" + "p" * (number % 700))

        feeding = asyncio.ensure_future(feed())
        for number in range(count):
            got = await asyncio.wait_for(ws.recv(), 10)
            assert got.split(":")[0] == str(number), f"{got[:20]} instead of {number}"
        await feeding


@case("websocket: fragments stay as they were cut", compression=None)
@case("websocket: fragments, compressed", compression="deflate")
async def fragments(t, compression):
    pieces = ["first ", "second piece ", "", "last" * 1000]
    async with socket(t, "fragments", compression=compression) as ws:
        await ws.send(iter(pieces))
        said = json.loads(await asyncio.wait_for(ws.recv(), 5))
        # The library ends a fragmented message with an empty frame.
        assert said[: len(pieces)] == [len(piece) for piece in pieces], said
        back = [piece async for piece in ws.recv_streaming()]
        assert back[: len(pieces)] == pieces, [len(piece) for piece in back]


@case("websocket: a ping of the visitor reaches the backend")
async def ping(t):
    mark = f"ping-{t.mode}"
    async with socket(t, "echo") as ws:
        waiter = await ws.ping(mark)
        latency = await asyncio.wait_for(waiter, 5)
        t.note(f"{latency * 1000:.1f} ms")
        assert mark in await seen(t, "pings"), "something in between answered the ping"


@case("websocket: a ping of the backend reaches the visitor")
async def ping_back(t):
    async with socket(t, "pings") as ws:
        assert await asyncio.wait_for(ws.recv(), 6) == "pong True"


@case("websocket: close codes of the backend")
async def closes(t):
    for code, reason in ((1000, ""), (1001, "going"), (1008, "policy ü"), (1011, "broken"), (3000, "three"), (4999, "x" * 100)):
        async with socket(t, f"closes?code={code}&reason={quote(reason)}") as ws:
            assert await ws.recv() == "closing"
            try:
                await asyncio.wait_for(ws.recv(), 5)
                raise AssertionError("the socket stayed open")
            except ConnectionClosed as end:
                assert end.rcvd and (end.rcvd.code, end.rcvd.reason) == (code, reason), end


@case("websocket: close codes of the visitor")
async def closed(t):
    for code, reason in ((1000, ""), (1001, "away"), (3001, "mine ü"), (4000, "")):
        note = f"closed-{t.mode}-{code}"
        async with socket(t, f"closed?note={note}") as ws:
            await ws.close(code, reason)
            # Only the backend's own answer completes the handshake with the same code.
            assert ws.close_code == code, ws.close_code
        got = await until("the backend sees the close", lambda note=note: seen(t, note), 5)
        assert got == [code, reason], got


@case("websocket: subprotocol, extension and path are agreed end to end")
async def agreed(t):
    async with socket(t, "says?x=%20y", subprotocols=["chat.v9", "chat.v2"], additional_headers={"X-Mine": "1"}) as ws:
        said = json.loads(await ws.recv())
        assert ws.subprotocol == said["subprotocol"] == "chat.v2", said
        assert said["extensions"] == ["permessage-deflate"], said
        assert [e.name for e in ws.protocol.extensions] == ["permessage-deflate"]
        assert said["path"] == "/ws/says?x=%20y", said
        assert [v for n, v in said["headers"] if n.lower() == "x-mine"] == ["1"], said
        text = "the same again " * 10_000
        await ws.send(text)
        assert await ws.recv() == text
    async with socket(t, "says", compression=None) as ws:
        said = json.loads(await ws.recv())
        assert said["extensions"] == [] and said["subprotocol"] is None, said


@case("websocket: a refused handshake passes with its body")
async def refused(t):
    for path, status, body in (("refuse", 403, b"you may not\n"), ("nowhere", 404, b"no such socket\n")):
        try:
            async with socket(t, path):
                raise AssertionError("the handshake was accepted")
        except InvalidStatus as refusal:
            assert refusal.response.status_code == status, refusal.response
            assert refusal.response.body == body, refusal.response.body


@case("websocket: a backend that vanishes is seen as a cut, not as a clean close")
async def vanish(t):
    async with socket(t, "abort") as ws:
        assert await ws.recv() == "now"
        try:
            await asyncio.wait_for(ws.recv(), 5)
            raise AssertionError("the socket stayed open")
        except ConnectionClosedError as end:
            assert end.rcvd is None or end.rcvd.code in (1011, 1012, 1014), end


@case("websocket: a visitor who vanishes ends the backend's socket")
async def leave(t):
    import time

    note = f"ticks-{t.mode}"
    ws = await socket(t, f"ticks?note={note}")
    assert await ws.recv() == "tick"
    left = time.time()
    ws.transport.abort()
    when = await until("the backend sees it", lambda: seen(t, f"{note}:cancelled"), 5)
    t.note(f"{(when - left) * 1000:.0f} ms")
    assert when - left < 1.0, f"only after {when - left:.2f} s"


@case("websocket: 50 sockets at once, each its own bytes", seconds=40)
async def fifty(t):
    async def one(number: int):
        random_bytes = random.Random(number).randbytes
        async with socket(t, "digest", compression=None) as ws:
            for turn in range(20):
                message = random_bytes(1000 * (turn + 1))
                await ws.send(message)
                assert await asyncio.wait_for(ws.recv(), 15) == hashlib.sha256(message).hexdigest()

    await asyncio.gather(*(one(n) for n in range(50)))
