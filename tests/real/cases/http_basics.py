"""HTTP with curl: what everybody does, in both versions."""

import asyncio
import hashlib
import json
import random
import time

from case import ALL, Skip, case
from curl import curl
from process import OUT, run


def at(t, http: str) -> str:
    """The address for a version of HTTP."""
    return f"http://{t.world.h2 if http == '2' else t.world.http}"


def both(name: str, **options):
    """A case for HTTP/1.1 and for HTTP/2 with prior knowledge."""

    def declare(function):
        case(f"curl h1: {name}", ALL, http="1.1", **options)(function)
        case(f"curl h2: {name}", ALL, http="2", **options)(function)
        return function

    return declare


@both("GET")
async def get(t, http):
    got = (await curl(at(t, http) + "/hello", http=http)).is_ok()
    assert got.body == b"hello\n", got.body
    assert got.version == ("HTTP/2" if http == "2" else "HTTP/1.1"), got.version
    assert got.one("content-length") == b"6", got.headers
    assert got.one("content-type") == b"text/plain", got.headers


@case("curl h1: GET twice on one connection", ALL)
async def keep_alive(t):
    # Not in HTTP/2: this curl (7.88) fails to use such a connection again, with any server.
    url = at(t, "1.1") + "/hello"
    got = (await curl(url, url, "-w", "%{num_connects}")).is_ok()
    assert got.body == b"hello\n1hello\n0", got.body


@both("POST with a length")
async def post(t, http):
    body = random.Random(1).randbytes(300_000)
    got = (await curl(at(t, http) + "/digest", "--data-binary", "@-", "-H", "Expect:", http=http, stdin=body)).is_ok()
    said = json.loads(got.body)
    assert said["sha256"] == hashlib.sha256(body).hexdigest(), said
    assert said["content_length"] == "300000", f"the length did not reach the backend: {said}"


@both("POST is echoed whole")
async def echo(t, http):
    body = random.Random(2).randbytes(700_001)
    got = (await curl(at(t, http) + "/echo", "--data-binary", "@-", "-H", "Expect:", http=http, stdin=body)).is_ok()
    assert got.body == body, f"{len(got.body)} bytes came back, not the {len(body)} sent"


@both("100 MB chunked upload, digest", seconds=60)
async def upload(t, http):
    size = 100_000_000
    path = OUT / "upload.bin"
    if not path.exists() or path.stat().st_size != size:
        path.write_bytes(random.Random(3).randbytes(1 << 20) * (size // (1 << 20)) + bytes(size % (1 << 20)))
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()
    began = time.monotonic()
    with open(path, "rb") as source:
        version = "--http2-prior-knowledge" if http == "2" else "--http1.1"
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", version, "--max-time", "50", "-T", "-", "-X", "POST", at(t, http) + "/digest",
            stdin=source, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err
    said = json.loads(out)
    assert said["length"] == size and said["sha256"] == wanted, said
    assert said["chunked"], f"an upload of unknown length must stay so: {said}"
    t.note(f"{size / (time.monotonic() - began) / 1e6:.0f} MB/s")


@both("100 MB download, digest", seconds=60)
async def download(t, http):
    size = 100_000_000
    got = (await curl(at(t, http) + f"/bytes?n={size}", http=http, seconds=50)).is_ok()
    block = random.Random(7).randbytes(1 << 20)[: 1 << 16]
    wanted = (block * (size // len(block) + 1))[:size]
    assert got.one("content-length") == str(size).encode(), got.headers
    assert got.body == wanted, f"{len(got.body)} bytes, not the ones sent"
    t.note(f"{size / got.seconds / 1e6:.0f} MB/s")


@both("a chunked download stays of unknown length")
async def chunked(t, http):
    got = (await curl(at(t, http) + "/bytes?n=500000&framing=chunked", http=http)).is_ok()
    assert len(got.body) == 500_000 and got.one("content-length") is None, got.headers


@both("HEAD keeps the length")
async def head(t, http):
    got = (await curl(at(t, http) + "/bytes?n=12345", "--head", http=http)).is_ok()
    assert got.one("content-length") == b"12345", got.headers


@both("204 and 304 have no body")
async def bodiless(t, http):
    got = (await curl(at(t, http) + "/status?code=204", http=http)).is_ok(204)
    assert got.body == b"" and got.one("x-mark") == b"nothing", got.headers
    assert got.one("transfer-encoding") is None, got.headers
    got = (await curl(at(t, http) + "/status?code=304", http=http)).is_ok(304)
    assert got.body == b"" and got.one("etag") == b'"abc"', got.headers


@both("the backend's own error passes")
async def own_error(t, http):
    for code in (400, 404, 418, 500, 503):
        got = (await curl(at(t, http) + f"/status?code={code}", http=http)).is_ok(code)
        assert got.body == f"status {code}\n".encode(), got.body
        assert got.one("x-strait-error") is None, "the backend's error was taken for ours"


@both("range of a file (nginx)")
async def ranges(t, http):
    if t.mode == "direct" and http == "2":
        raise Skip("Debian's nginx-light takes HTTP/2 over TLS only")
    url = f"http://{t.world.files}/files/digits.txt"
    got = (await curl(url, "-r", "1000-1019", http=http)).is_ok(206)
    assert got.body == b"000000100\n000000101\n", got.body
    assert got.one("content-range") == b"bytes 1000-1019/1000000", got.headers
    got = (await curl(url, "-r", "2000000-", http=http)).is_ok(416)
    whole = (await curl(url, http=http)).is_ok()
    assert len(whole.body) == 1_000_000 and whole.one("accept-ranges") == b"bytes", whole.headers
    etag = whole.one("etag").decode()
    (await curl(url, "-H", f"If-None-Match: {etag}", http=http)).is_ok(304)


@both("server-sent events come one by one", seconds=15)
async def events(t, http):
    version = "--http2-prior-knowledge" if http == "2" else "--http1.1"
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-N", version, "--max-time", "10", at(t, http) + "/events?n=5&ms=200",
        stdout=asyncio.subprocess.PIPE,
    )
    late, count = [], 0
    async for line in process.stdout:
        if line.startswith(b"data: "):
            late.append(time.time() - float(line[6:]))
            count += 1
    assert await process.wait() == 0 and count == 5, f"{count} events"
    # Were they collected, the first would be 800 ms old when it arrives.
    assert late[0] < 0.5 and sorted(late)[2] < 0.2, f"events came late: {late}"
    t.note(f"slowest {max(late) * 1000:.0f} ms")


@both("trailers of an answer")
async def trailers(t, http):
    got = (await curl(at(t, http) + "/trailers", "-H", "TE: trailers", http=http)).is_ok()
    wanted = [("x-digest", hashlib.sha256(b"with trailers\n").hexdigest().encode()), ("x-count", b"14")]
    assert got.body == b"with trailers\n"
    assert got.trailers == wanted, f"trailers {got.trailers}, headers {got.headers}"


@case("nghttp: trailers of a request", ALL)
async def request_trailers(t):
    path = OUT / "trailed.txt"
    path.write_bytes(b"body before trailers")
    ran = (
        await run("nghttp", "-d", path, "--no-content-length", "--trailer", "x-sum: 42", "-H", ":method: POST",
                  f"http://{t.world.h2}/digest")
    ).ok()
    said = json.loads(ran.text)
    assert said["length"] == 20 and ["x-sum", "42"] in [[n.lower(), v] for n, v in said["trailers"]], said


NODE = """
const http = require('http');
const [host, port] = process.argv[1].split(':');
const r = http.request({host, port, path: '/digest', method: 'POST',
  headers: {'Trailer': 'x-sum', 'Transfer-Encoding': 'chunked'}}, (a) => {
  let text = ''; a.on('data', (d) => text += d); a.on('end', () => console.log(text)); });
r.write('body '); r.write('before trailers'); r.addTrailers({'x-sum': '42'}); r.end();
"""


@case("node h1: trailers of a request", ALL)
async def request_trailers_node(t):
    ran = (await run("node", "-e", NODE, t.world.http)).ok()
    said = json.loads(ran.text)
    assert said["length"] == 20 and ["x-sum", "42"] in [[n.lower(), v] for n, v in said["trailers"]], said
