"""An HTTP/1.1 backend that writes its own bytes, so that it can also misbehave.

usage: web.py PORT [NAME]

What it noticed (cancelled requests, reports of a page) is read at /_seen, from the
backend's own port.
"""

import asyncio
import hashlib
import json
import pathlib
import random
import sys
import time
from urllib.parse import parse_qsl, urlsplit

NAME = sys.argv[2] if len(sys.argv) > 2 else "backend"
BLOCK = random.Random(7).randbytes(1 << 20)
SEEN: dict[str, object] = {}
PAGES = pathlib.Path(__file__).parent.parent / "pages"
ROUTES = {}


def route(path):
    def add(handler):
        ROUTES[path] = handler
        return handler

    return add


class Request:
    """One request on a connection, with its answer."""

    def __init__(self, head: bytes, reader, writer):
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = lines[0].split(" ", 2)
        self.headers = [
            (name, value.strip(" \t"))
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        ]
        parts = urlsplit(self.target)
        self.path, self.query = parts.path, dict(parse_qsl(parts.query))
        self.reader, self.writer = reader, writer
        self.trailers: list[tuple[str, str]] = []
        self.keep = True
        self.drained = False

    def header(self, name: str, otherwise: str = "") -> str:
        return next((v for n, v in self.headers if n.lower() == name), otherwise)

    def number(self, name: str, otherwise: int) -> int:
        return int(self.query.get(name, otherwise))

    @property
    def chunked(self) -> bool:
        return self.header("transfer-encoding").lower() == "chunked"

    async def body(self):
        """The body's pieces as they come; trailers are kept."""
        self.drained = True
        if self.header("expect") == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self.writer.drain()
        if not self.chunked:
            left = int(self.header("content-length", "0"))
            while left:
                piece = await self.reader.read(min(left, 1 << 18))
                if not piece:
                    raise ConnectionError("the request was cut")
                left -= len(piece)
                yield piece
            return
        while True:
            size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size == 0:
                break
            while size:
                piece = await self.reader.read(min(size, 1 << 18))
                if not piece:
                    raise ConnectionError("the request was cut")
                size -= len(piece)
                yield piece
            await self.reader.readexactly(2)
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode("latin-1").rstrip("\r\n").partition(":")
            self.trailers.append((name, value.strip()))

    def head(self, status: int, headers=(), length: int | None = None) -> None:
        """Writes the answer's head; without a length the body is chunked."""
        lines = [f"HTTP/1.1 {status} Whatever"]
        lines += [f"{name}: {value}" for name, value in headers]
        lines.append(f"x-backend: {NAME}")
        if length is not None:
            lines.append(f"content-length: {length}")
        elif status not in (204, 304):
            lines.append("transfer-encoding: chunked")
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def chunk(self, piece: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await self.writer.drain()

    def end(self, trailers=()) -> None:
        fields = "".join(f"{n}: {v}\r\n" for n, v in trailers)
        self.writer.write(f"0\r\n{fields}\r\n".encode("latin-1"))

    def answer(self, status: int, body: bytes, headers=()) -> None:
        self.head(status, headers, len(body))
        if self.method != "HEAD":
            self.writer.write(body)

    def json(self, value, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), [("content-type", "application/json")])

    async def gone(self) -> None:
        """Returns when the other side has closed or reset the connection."""
        while await self.reader.read(1 << 16):
            pass


@route("/hello")
async def hello(r: Request):
    r.answer(200, b"hello\n", [("content-type", "text/plain")])


@route("/digest")
async def digest(r: Request):
    total, count = hashlib.sha256(), 0
    async for piece in r.body():
        total.update(piece)
        count += len(piece)
    r.json(
        {
            "length": count,
            "sha256": total.hexdigest(),
            "chunked": r.chunked,
            "content_length": r.header("content-length"),
            "trailers": r.trailers,
        }
    )


@route("/echo")
async def echo(r: Request):
    kind = [("content-type", r.header("content-type", "application/octet-stream"))]
    if r.header("content-length"):
        r.head(200, kind, int(r.header("content-length")))
        async for piece in r.body():
            r.writer.write(piece)
            await r.writer.drain()
    else:
        r.head(200, kind)
        async for piece in r.body():
            await r.chunk(piece)
        r.end()


@route("/seen-head")
async def seen_head(r: Request):
    r.json({"method": r.method, "target": r.target, "headers": r.headers, "backend": NAME})


@route("/bytes")
async def some_bytes(r: Request):
    size = r.number("n", 1 << 20)
    chunked = r.query.get("framing") == "chunked"
    r.head(200, [], None if chunked else size)
    if r.method == "HEAD":
        return
    sent = 0
    note = r.query.get("note")
    while sent < size:
        piece = BLOCK[: min(1 << 16, size - sent)]
        if chunked:
            await r.chunk(piece)
        else:
            r.writer.write(piece)
            await r.writer.drain()
        sent += len(piece)
        if note:
            SEEN[note] = sent
    if chunked:
        r.end()


@route("/status")
async def status(r: Request):
    code = r.number("code", 200)
    if code == 204:
        r.head(204, [("x-mark", "nothing")])
    elif code == 304:
        r.head(304, [("etag", '"abc"')])
    else:
        r.answer(code, f"status {code}\n".encode())


@route("/events")
async def events(r: Request):
    r.head(200, [("content-type", "text/event-stream"), ("cache-control", "no-store")])
    for number in range(r.number("n", 5)):
        await r.chunk(f"id: {number}\ndata: {time.time():.6f}\n\n".encode())
        await asyncio.sleep(r.number("ms", 200) / 1000)
    r.end()


@route("/trailers")
async def trailers(r: Request):
    r.head(200, [("trailer", "x-digest, x-count")])
    await r.chunk(b"with trailers\n")
    r.end([("x-digest", hashlib.sha256(b"with trailers\n").hexdigest()), ("x-count", "14")])


@route("/cookies")
async def cookies(r: Request):
    r.answer(
        200,
        b"cookies\n",
        [("X-One", "1"), ("Set-Cookie", "a=1; Path=/"), ("X-Two", "2"), ("Set-Cookie", "b=2"), ("X-Three", "3")],
    )


@route("/big-header")
async def big_header(r: Request):
    r.answer(200, b"big\n", [("x-big", "v" * r.number("n", 16000))])


@route("/odd-bytes")
async def odd_bytes(r: Request):
    r.answer(200, b"odd\n", [("x-odd", "\u00e9t\u00e9 \u00ff\u0080")])


@route("/early")
async def early(r: Request):
    # Answers before it has read the upload; then it reads on for a moment, as servers do
    # lest a reset overtakes the answer, and notes how much was still sent.
    r.answer(413, b"too much\n", [("connection", "close")])
    r.keep, r.drained, note = False, True, r.query.get("note", "early")
    r.writer.write_eof()
    SEEN[note] = 0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            piece = await asyncio.wait_for(r.reader.read(1 << 18), end - time.monotonic())
        except TimeoutError:
            break
        if not piece:
            break
        SEEN[note] += len(piece)


@route("/cut")
async def cut(r: Request):
    size = r.number("n", 100000)
    if r.query.get("framing") == "chunked":
        r.head(200)
        await r.chunk(BLOCK[:size])
    else:
        r.head(200, [], size * 2)
        r.writer.write(BLOCK[:size])
        await r.writer.drain()
    await asyncio.sleep(0.1)
    r.keep = False
    if r.query.get("how") == "reset":
        r.writer.transport.abort()


@route("/cut-head")
async def cut_head(r: Request):
    r.keep = False
    r.writer.transport.abort()


@route("/wait")
async def wait(r: Request):
    """Answers after `ms`; notes when the visitor went away before."""
    note = r.query.get("note", "wait")
    SEEN[f"{note}:began"] = time.time()
    watch = asyncio.ensure_future(r.gone())
    done, _ = await asyncio.wait([watch], timeout=r.number("ms", 1000) / 1000)
    if done:
        SEEN[f"{note}:cancelled"] = time.time()
        r.keep = False
        return
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    r.answer(200, b"waited\n")


@route("/count")
async def count(r: Request):
    """Counts how often each `key` was executed, then takes its time."""
    async for _ in r.body():
        pass
    counts = SEEN.setdefault(r.query["note"], {})
    counts[r.query["key"]] = counts.get(r.query["key"], 0) + 1
    await asyncio.sleep(r.number("ms", 1000) / 1000)
    r.answer(200, b"counted\n")


@route("/never-read")
async def never_read(r: Request):
    """Answers with a head at once and pushes for ever; notes when it was cut off."""
    note = r.query.get("note", "stream")
    r.head(200)
    SEEN[f"{note}:began"] = time.time()
    try:
        while True:
            await r.chunk(BLOCK[:16384])
            await asyncio.sleep(0.01)
    except (ConnectionError, OSError):
        SEEN[f"{note}:cancelled"] = time.time()
        r.keep = False


@route("/page")
async def page(r: Request):
    path = PAGES / pathlib.Path(r.query.get("name", "browser.html")).name
    kind = {".html": "text/html", ".js": "text/javascript"}[path.suffix]
    r.answer(200, path.read_bytes(), [("content-type", f"{kind}; charset=utf-8")])


@route("/report")
async def report(r: Request):
    SEEN[r.query["note"]] = json.loads(b"".join([piece async for piece in r.body()]))
    r.answer(200, b"thank you\n")


@route("/_seen")
async def seen(r: Request):
    r.json(SEEN)


async def serve(reader, writer):
    try:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            r = Request(head[:-4], reader, writer)
            handler = ROUTES.get(r.path)
            if handler is None:
                r.answer(404, b"not found here\n")
            else:
                await handler(r)
            if not r.drained:
                if r.keep and (r.chunked or r.header("content-length", "0") != "0"):
                    async for _ in r.body():
                        pass
            await writer.drain()
            if not r.keep:
                break
    except (ConnectionError, OSError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=1 << 20, backlog=2048)
    async with server:
        await server.serve_forever()


asyncio.run(main())
