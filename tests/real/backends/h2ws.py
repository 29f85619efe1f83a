"""An echo of WebSockets by Hypercorn, which takes them by HTTP/1.1 and by HTTP/2.

usage: h2ws.py PORT
"""

import asyncio
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config


async def app(scope, receive, send):
    """Says the version of HTTP and the subprotocols, then echoes."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["http_version"].encode()})
    if scope["type"] != "websocket":
        return
    await receive()
    if scope["path"].endswith("/refuse"):
        # Before it is accepted, this is a 403.
        await send({"type": "websocket.close"})
        return
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": offered[-1] if offered else None})
    await send({"type": "websocket.send", "text": scope["http_version"]})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})


config = Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
config.websocket_max_message_size = 64 << 20
asyncio.run(serve(app, config))
