"""What a caller sees when something fails: one kind, one line, one count, on either entry."""

import asyncio
import re
import signal
import socket
import time
from dataclasses import dataclass, field

from case import ENTRIES, case
from cases.life import FAR, NEAR
from curl import curl
from process import free_port, until
from strait import Service

SETTINGS = """
[limits]
max_body = "1KiB"
max_uri = "4KiB"
max_header_bytes = "8KiB"
[timeouts]
answer_head = "500ms"
hold = "1s"
"""


@dataclass
class Row:
    """One mistake or mishap, and what it must look like."""

    kind: str
    status: int
    side: str
    host: str = "up.test"
    path: str = "/hello"
    flags: list[str] = field(default_factory=list)
    http: tuple[str, ...] = ("1.1", "2")
    closes: bool = False


ROWS = [
    Row("no_route", 404, "caller", host="nobody.test"),
    Row("backend_refused", 502, "upstream", host="down.test"),
    Row("backend_reset", 502, "upstream", path="/cut-head"),
    Row("backend_timeout", 504, "upstream", path="/wait?ms=5000"),
    Row("body_too_large", 413, "caller", path="/digest", flags=["--data-binary", "x" * 1025], closes=True),
    Row("body_too_large", 413, "caller", path="/digest", closes=True, http=("1.1",),
        flags=["--data-binary", "x" * 1025, "-H", "Transfer-Encoding: chunked"]),
    Row("uri_too_long", 414, "caller", path="/" + "u" * 4096, closes=True),
    Row("header_too_large", 431, "caller", flags=["-H", "X: " + "y" * 8192], closes=True),
    Row("bad_request", 405, "caller", flags=["-X", "TRACE"], closes=True),
    Row("bad_request", 400, "caller", host="up.test:port", closes=True, http=("1.1",)),
    Row("loop", 508, "us", host="loop.test"),
]
LINE = re.compile(rb"([a-z_]+): [^\n]+ \(request ([0-9a-f-]{36})\)\n")


async def world_of_faults(t, name: str):
    """A pair with a good service, one that is down, and one that leads back to the entry."""
    world = await t.pair(f"faults-{name}-{t.mode}", settings=SETTINGS)
    near = NEAR[t.mode]
    services = world.behind_client if near == "server" else world.behind_server
    services += [
        Service("http", t.backends.http, host="up.test"),
        Service("http", free_port(), host="down.test"),
        Service("http", world.entry[near], host="loop.test"),
        Service("grpc", t.backends.grpc, host="up.test"),
        Service("grpc", free_port(), host="down.test"),
    ]
    return await world.up(), near, FAR[t.mode]


async def errors(pair, side: str) -> dict[tuple[str, str], float]:
    """`strait_errors_total` by kind and side."""
    found = {}
    for name, value in (await pair.metrics(side)).items():
        if match := re.fullmatch(r'strait_errors_total\{kind="(.*)",side="(.*)"\}', name):
            found[match[1], match[2]] = value
    return found


@case("faults: each has its status, its kind, one line without a private name, and is counted", ENTRIES, seconds=60)
async def faces(t):
    pair, near, _ = await world_of_faults(t, "faces")
    entry, wanted, ids = f"http://127.0.0.1:{pair.entry[near]}", {}, {}
    for row in ROWS:
        for http in row.http:
            flags = ["-H", f"Host: {row.host}", *row.flags]
            got = await curl(entry + row.path, *flags, http=http)
            shown = f"{row.kind} over HTTP/{http}"
            assert got.status == row.status, f"{shown}: {got.status} {got.body[:200]!r} {got.ran.errors}"
            assert got.all("x-strait-error") == [row.kind.encode()], f"{shown}: {got.headers}"
            assert got.one("content-type") == b"text/plain; charset=utf-8", f"{shown}: {got.headers}"
            line = LINE.fullmatch(got.body)
            assert line and line[1] == row.kind.encode(), f"{shown}: {got.body!r}"
            private = [b"127.0.0.1", b"localhost", b"http-", row.host.encode()]
            assert not any(name in got.body for name in private), f"{shown}: {got.body!r}"
            if http == "1.1":
                assert (got.one("connection") == b"close") == row.closes, f"{shown}: {got.headers}"
            if row.kind == "backend_refused":
                assert got.seconds < 0.9, f"{shown}: {got.seconds:.2f} s, as if another tunnel could help"
            assert bool(got.all("retry-after")) == (row.status == 503), f"{shown}: {got.headers}"
            ids[line[2].decode()] = row
            key = (row.kind, row.side)
            # Of a loop the last turn is the fault; to those before, it is an answer.
            wanted[key] = wanted.get(key, 0) + 1
    assert (seen := await errors(pair, near)) == wanted, f"{seen} instead of {wanted}"
    t.note(f"{int(sum(seen.values()))} faults of {len(seen)} kinds")

    def logged():
        lines = {line["id"]: line for line in pair.lines(near)}
        return lines if set(ids) <= set(lines) else None

    lines = await until("the log has a line for each", logged, 5)
    for id, row in ids.items():
        assert (lines[id]["end"], lines[id]["status"]) == (row.kind, row.status), f"{row.kind}: {lines[id]}"
    await pair.clean()


@case("faults: gRPC callers get the same faults as a status in an answer of 200", ENTRIES, seconds=40)
async def grpc_faces(t):
    pair, near, _ = await world_of_faults(t, "grpc")
    entry = f"http://127.0.0.1:{pair.entry[near]}"
    flags = ["-X", "POST", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    for kind, status, host, more in (
        ("no_route", b"12", "nobody.test", []),
        ("backend_refused", b"14", "down.test", []),
        ("bad_request", b"13", "up.test", ["-H", "grpc-timeout: soon"]),
        ("header_too_large", b"8", "up.test", ["-H", "X: " + "y" * 8192]),
    ):
        got = await curl(f"{entry}/probe.v1.Probe/Ask", *flags, *more, "-H", f"Host: {host}", http="2")
        assert got.status == 200 and got.one("grpc-status") == status, f"{kind}: {got.headers}"
        assert got.one("x-strait-error") == kind.encode(), got.headers
        assert got.one("grpc-message").startswith(kind.encode() + b": "), got.headers
        assert got.body == b"", got.body


@case("faults: the far side is away: requests are held, then 503 with Retry-After; its return answers them", ENTRIES, seconds=40)
async def offline(t):
    pair, near, far = await world_of_faults(t, "offline")
    entry = f"http://127.0.0.1:{pair.entry[near]}/hello"
    flags = ["-H", "Host: up.test"]
    (await curl(entry, *flags)).is_ok()
    pair.kill(far)
    await pair.node[far].ended(5)

    async def noticed():
        return not (await pair.status(near))["sessions"]

    await until("the near side has noticed", noticed, 5)
    got = (await curl(entry, *flags)).is_ok(503)
    assert got.one("x-strait-error") == b"client_offline" and got.one("retry-after") == b"1", got.headers
    assert got.seconds >= 0.9, f"refused after {got.seconds:.2f} s, not held"
    # Whoever comes while it starts is answered as soon as it is there.
    began = time.monotonic()
    starting = asyncio.ensure_future(pair.start(far))
    while (got := await curl(entry, *flags)).status == 503:
        assert time.monotonic() - began < 15, "it does not come back"
    got.is_ok()
    await starting


@case("faults: a visitor who leaves before the answer is a 499 in the log and the metrics", ENTRIES, seconds=40)
async def gone(t):
    pair, near, _ = await world_of_faults(t, "gone")
    _, writer = await asyncio.open_connection("127.0.0.1", pair.entry[near])
    writer.write(b"GET /wait?ms=400 HTTP/1.1\r\nHost: up.test\r\n\r\n")
    await asyncio.sleep(0.2)
    writer.transport.abort()
    line = await until("the log has a line", lambda: pair.lines(near), 5)
    assert (line[0]["status"], line[0]["end"], line[0]["side"]) == (499, "cancelled", "caller"), line[0]
    assert (await errors(pair, near)) == {("cancelled", "caller"): 1.0}


@case("faults: an upload that stalls is a 408, and the connection closes", ENTRIES, seconds=40)
async def stalled(t):
    world = await t.alone(f"stalls-{t.mode}", settings='[timeouts]\nbody_idle = "300ms"\n')
    port = world.pair.entry[NEAR[t.mode]]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"request_timeout: " in answer, answer
    assert b"connection: close\r\n" in answer, answer
    writer.close()
    await world.pair.clean()


@case("faults: a draining node answers what it has, and closes its connections", ENTRIES, seconds=40)
async def draining(t):
    pair, near, _ = await world_of_faults(t, "draining")
    port = pair.entry[near]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /wait?ms=450 HTTP/1.1\r\nHost: up.test\r\n\r\n")
    await asyncio.sleep(0.15)
    pair.node[near].signal(signal.SIGTERM)
    answer = (await asyncio.wait_for(reader.read(), 10)).lower()
    assert answer.startswith(b"http/1.1 200 ") and b"\r\nconnection: close\r\n" in answer, answer
    writer.close()
    assert await pair.node[near].ended(10) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the port is still open"
