"""A WebSocket backend made with the `websockets` library.

usage: ws.py PORT

What it noticed (pings of a visitor, how sockets were closed) is read at /_seen.
"""

import asyncio
import hashlib
import json
import logging
import re
import sys
import time
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

SEEN: dict[str, object] = {"pings": []}


class Pings(logging.Handler):
    """Keeps what the library's debug log says about pings of the other side."""

    def emit(self, record):
        message = record.getMessage()
        if found := re.match(r"< PING '?([^' ]*)", message):
            SEEN["pings"].append(found.group(1))
            del SEEN["pings"][:-1000]


log = logging.getLogger("websockets.server")
log.setLevel(logging.DEBUG)
log.propagate = False
log.addHandler(Pings())


async def echo(socket, query):
    async for message in socket:
        await socket.send(message)


async def fragments(socket, query):
    """Says how a fragmented message was cut, then sends it back in the same fragments."""
    pieces = [piece async for piece in socket.recv_streaming()]
    await socket.send(json.dumps([len(piece) for piece in pieces]))

    async def again():
        for piece in pieces:
            yield piece

    await socket.send(again())


async def digest(socket, query):
    async for message in socket:
        data = message.encode() if isinstance(message, str) else message
        await socket.send(hashlib.sha256(data).hexdigest())


async def closes(socket, query):
    """Closes with the code and reason asked for."""
    await socket.send("closing")
    await socket.close(int(query["code"]), query.get("reason", ""))


async def closed(socket, query):
    """Notes how the visitor closed."""
    try:
        async for _ in socket:
            pass
    except ConnectionClosed:
        pass
    got = socket.protocol.close_rcvd
    SEEN[query["note"]] = [got.code, got.reason] if got else [socket.close_code, ""]


async def pings(socket, query):
    """Pings the visitor and says that the pong came back with the same bytes."""
    pong = await socket.ping(b"from the backend")
    latency = await asyncio.wait_for(pong, 5)
    await socket.send(f"pong {latency >= 0}")


async def says(socket, query):
    """Says what the handshake agreed on."""
    await socket.send(
        json.dumps(
            {
                "subprotocol": socket.subprotocol,
                "extensions": [e.name for e in socket.protocol.extensions],
                "path": socket.request.path,
                "headers": list(socket.request.headers.raw_items()),
            }
        )
    )
    async for message in socket:
        await socket.send(message)


async def numbers(socket, query):
    """Answers each message n with the next number; a frame out of order shows."""
    expected = 0
    async for message in socket:
        if message != f"frame {expected}":
            await socket.send(f"wrong order: {message} instead of {expected}")
            return
        await socket.send(f"answer {expected}")
        expected += 1


async def abort(socket, query):
    """Vanishes without a close frame."""
    await socket.send("now")
    await asyncio.sleep(0.05)
    socket.transport.abort()


async def ticks(socket, query):
    """Sends until the visitor is gone; notes when."""
    note = query["note"]
    SEEN[f"{note}:began"] = time.time()
    try:
        while True:
            await socket.send("tick")
            await asyncio.sleep(0.02)
    except ConnectionClosed:
        SEEN[f"{note}:cancelled"] = time.time()


PATHS = {
    f"/ws/{f.__name__}": f
    for f in (echo, fragments, digest, closes, closed, pings, says, numbers, abort, ticks)
}


def first_look(connection, request):
    path = urlsplit(request.path).path
    if path == "/_seen":
        return connection.respond(200, json.dumps(SEEN))
    if path == "/ws/refuse":
        return connection.respond(403, "you may not\n")
    if path not in PATHS:
        return connection.respond(404, "no such socket\n")


async def handle(socket):
    parts = urlsplit(socket.request.path)
    await PATHS[parts.path](socket, dict(parse_qsl(parts.query)))


async def main():
    # Pings of its own would disturb what the tests count.
    async with serve(
        handle,
        "127.0.0.1",
        int(sys.argv[1]),
        process_request=first_look,
        select_subprotocol=lambda _, offered: "chat.v2" if "chat.v2" in offered else None,
        ping_interval=None,
        max_size=64 << 20,
        logger=log,
        backlog=2048,
    ) as server:
        await server.serve_forever()


asyncio.run(main())
