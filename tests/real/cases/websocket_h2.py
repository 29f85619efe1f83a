"""WebSocket by HTTP/2 (RFC 8441): visitors of `h2` and `wsproto`, a backend of Hypercorn."""

import asyncio
import contextlib
import hashlib
import json
import random

from wsproto.events import BytesMessage, CloseConnection, TextMessage
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from case import ENTRIES, case
from h2socket import CONNECT, Line, Socket
from process import backend, until
from strait import Service


async def seen(t, key: str):
    """What the backend noticed."""
    return (await t.backends.seen(t.backends.ws)).get(key)


@case("websocket h2: messages, compression and close codes on one connection", ENTRIES)
async def sockets(t):
    async with Line.to(t.world.ws) as line:
        assert line.h2.remote_settings.get(CONNECT) == 1, "the entry does not announce RFC 8441"

        async def digests(number: int):
            head, ws = await line.connect("/ws/digest")
            assert head[":status"] == "200", head
            assert "sec-websocket-accept" not in head and "upgrade" not in head, head
            assert head["sec-websocket-extensions"].startswith("permessage-deflate"), head
            for turn in range(6):
                data = random.Random(number).randbytes(60_000 * turn + number)
                await ws.send(BytesMessage(data))
                assert await asyncio.wait_for(ws.message(), 10) == hashlib.sha256(data).hexdigest()
            end = await ws.close(3001, "mine ü")
            assert (end.code, end.reason) == (3001, "mine ü"), end

        await asyncio.gather(*(digests(number) for number in range(20)))
        head, ws = await line.connect("/ws/says", ("sec-websocket-protocol", "chat.v9, chat.v2"))
        assert head["sec-websocket-protocol"] == "chat.v2", head
        said = json.loads(await asyncio.wait_for(ws.message(), 5))
        assert said["subprotocol"] == "chat.v2" and said["extensions"] == ["permessage-deflate"], said
        head, ws = await line.connect("/ws/pings")
        assert await asyncio.wait_for(ws.message(), 6) == "pong True"
        head, ws = await line.connect("/ws/closes?code=4321&reason=because")
        assert await asyncio.wait_for(ws.message(), 5) == "closing"
        end = await asyncio.wait_for(ws.message(), 5)
        assert isinstance(end, CloseConnection) and (end.code, end.reason) == (4321, "because"), end


@case("websocket h2: refusals are statuses, and the connection lives", ENTRIES)
async def refused(t):
    async with Line.to(t.world.ws) as line:
        for path, options, status in (
            ("/ws/refuse", {}, "403"), ("/ws/nowhere", {}, "404"),
            ("/ws/echo", {"version": "8"}, "400"), ("/ws/echo", {"protocol": "connect-udp"}, "501"),
        ):
            head, _ = await line.connect(path, **options)
            assert head[":status"] == status, (path, options, head)
        _, head = await line.ask([(":method", "CONNECT"), (":authority", "a.example:443")])
        assert dict(head)[":status"] == "405", head
        head, ws = await line.connect("/ws/echo")
        await ws.send(TextMessage("still here"))
        assert await asyncio.wait_for(ws.message(), 5) == "still here"


@case("websocket h2: a side that vanishes is seen at the other as a cut", ENTRIES)
async def vanish(t):
    note = f"h2-ticks-{t.mode}"
    async with Line.to(t.world.ws) as line:
        _, ws = await line.connect("/ws/abort")
        assert await asyncio.wait_for(ws.message(), 5) == "now"
        end = await asyncio.wait_for(ws.message(), 5)
        assert end is None or end.code in (1011, 1012, 1014), end
        _, ws = await line.connect(f"/ws/ticks?note={note}")
        assert await asyncio.wait_for(ws.message(), 5) == "tick"
        ws.cut()
        await until("the backend sees the reset", lambda: seen(t, f"{note}:cancelled"), 3)


@case("websocket h2: a backend of HTTP/2 gets extended CONNECT, whatever the visitor speaks", ENTRIES)
async def backends(t):
    _, port = await backend("h2ws", f"backend-h2ws-{t.mode}")
    world = await t.alone(f"h2ws-{t.mode}", services=[Service("http", f"h2c://127.0.0.1:{port}")])
    text = "grüße 🚀" * 20_000
    async with Line.to(world.ws) as line:
        head, ws = await line.connect("/echo", ("sec-websocket-protocol", "v1, v2"))
        assert head[":status"] == "200" and head["sec-websocket-protocol"] == "v2", head
        assert await asyncio.wait_for(ws.message(), 5) == "2", "the backend's leg is not HTTP/2"
        await ws.send(TextMessage(text))
        assert await asyncio.wait_for(ws.message(), 10) == text
        assert (await ws.close(1000)).code == 1000
        head, _ = await line.connect("/refuse")
        assert head[":status"] == "403", head
    async with connect(f"ws://{world.ws}/echo", subprotocols=["v1", "v2"], close_timeout=5) as ws:
        assert ws.subprotocol == "v2"
        assert await asyncio.wait_for(ws.recv(), 5) == "2"
        await ws.send(text)
        assert await asyncio.wait_for(ws.recv(), 10) == text
        await ws.close(1000)
        assert ws.close_code == 1000
    try:
        async with connect(f"ws://{world.ws}/refuse"):
            raise AssertionError("the handshake was accepted")
    except InvalidStatus as refusal:
        assert refusal.response.status_code == 403, refusal.response
    side = t.mode.split("-")[0]

    async def versions():
        return sorted(line["http_version"] for line in world.pair.lines(side) if line["protocol"] == "websocket")

    wanted = ["1.1", "1.1", "2", "2"]

    async def logged():
        return await versions() == wanted

    await until(f"the access log tells {wanted}", logged, 5)


@case("websocket h2: 1,000 idle sockets on 5 connections cost little memory each", ENTRIES, seconds=60)
async def idle(t):
    _, port = await t.fast(f"backend-idle-h2-{t.mode}")
    world = await t.alone(f"idle-h2-{t.mode}", services=[Service("http", port)])

    def memory() -> dict[str, int]:
        return {side: node.rss() for side, node in world.pair.node.items()}

    async def opened(count: int) -> list[Socket]:
        line = await lines.enter_async_context(Line.to(world.fast))
        return [(await line.connect("/socket"))[1] for _ in range(count)]

    async with contextlib.AsyncExitStack() as lines:
        # What a node needs once is not of the sockets.
        await opened(200)
        before = memory()
        sockets = [socket for _ in range(5) for socket in await opened(200)]
        each = {side: (rss - before[side]) / len(sockets) / 1024 for side, rss in memory().items()}
        t.note(f"{each['server']:.1f} + {each['client']:.1f} KiB for an idle socket")
        for side, kibibytes in each.items():
            assert kibibytes <= 16, f"an idle socket costs the {side} {kibibytes:.1f} KiB"
        for number, ws in enumerate(sockets):
            await ws.send(TextMessage(str(number)))
        for number, ws in enumerate(sockets):
            assert await asyncio.wait_for(ws.message(), 10) == str(number)
    await world.pair.clean(10)
