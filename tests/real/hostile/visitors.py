"""Visitors, and what they are shown in the end."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import grpc
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hostile.peer import CHANNEL

CUT = "cut"


@dataclass(repr=False)
class Shown:
    """What one visitor got: an HTTP status, a close code or the name of a gRPC status; `cut`
    for an answer that visibly ended early."""

    what: object
    headers: list = field(default_factory=list)
    body: bytes = b""

    def __repr__(self) -> str:
        return f"{self.what} {self.headers!s:.200} {self.body!r:.100}"


async def by_http(port: int, path: str) -> Shown:
    """A plain request, whose answer is read to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: visitor.test\r\nConnection: close\r\n\r\n".encode())
        raw = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := await reader.read(1 << 16):
                raw += piece
    finally:
        writer.close()
    head, gap, body = raw.partition(b"\r\n\r\n")
    if not gap:
        return Shown(CUT)
    lines = head.decode("latin-1").split("\r\n")
    headers = [(n.strip().lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines[1:])]
    status, named = int(lines[0].split(" ")[1]), dict(headers)
    if named.get("transfer-encoding") == "chunked":
        whole, body = body.endswith(b"0\r\n\r\n"), _unchunk(body)
    else:
        whole = len(body) == int(named.get("content-length", 0 if status == 204 else -1))
    return Shown(status if whole else CUT, headers, body)


def _unchunk(body: bytes) -> bytes:
    whole = b""
    while True:
        size, _, rest = body.partition(b"\r\n")
        if not size or not int(size, 16):
            return whole
        whole, body = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


async def by_ws(port: int, path: str) -> Shown:
    """A socket that reads until it is closed: shown its code."""
    try:
        async with connect(
            f"ws://127.0.0.1:{port}{path}", ping_interval=None, close_timeout=2, compression=None, max_size=None
        ) as socket:
            got = b""
            try:
                while True:
                    message = await socket.recv()
                    got += message if isinstance(message, bytes) else message.encode()
            except ConnectionClosed as closed:
                return Shown(closed.rcvd.code if closed.rcvd else CUT, [], got)
    except InvalidStatus as refused:
        return Shown(refused.response.status_code)


async def by_grpc(port: int, path: str) -> Shown:
    """A call with one message and any number of answers: shown its status."""
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL)
    call, got = channel.unary_stream(path)(b"question", timeout=10), b""
    try:
        async for message in call:
            got += message
        return Shown("OK", [], got)
    except grpc.aio.AioRpcError as error:
        return Shown(error.code().name, [], got)
    finally:
        await channel.close()


VISITORS = {"http": by_http, "ws": by_ws, "grpc": by_grpc}
