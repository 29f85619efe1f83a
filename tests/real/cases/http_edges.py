"""HTTP with curl: duplicates, odd bytes, early and cut answers, visitors who leave."""

import asyncio
import json
import signal
import time

from case import ALL, ENTRIES, case
from cases.http_basics import at, both
from curl import CUTS, EMPTY_REPLY, H2_STREAM, RECEIVE_FAILED, curl
from process import run, until


@both("Set-Cookie twice, in order")
async def cookies(t, http):
    got = (await curl(at(t, http) + "/cookies", http=http)).is_ok()
    assert got.all("set-cookie") == [b"a=1; Path=/", b"b=2"], got.headers
    names = [n for n, _ in got.headers if n.startswith("x-") and n not in ("x-backend", "x-strait-error")]
    assert names == ["x-one", "x-two", "x-three"], got.headers


@both("duplicate request headers, in order")
async def duplicates(t, http):
    flags = ["-H", "X-Many: one", "-H", "X-Other: o", "-H", "X-Many: two", "-H", "X-Many: three, four"]
    got = (await curl(at(t, http) + "/seen-head?a=1&b=%2F%20", *flags, http=http)).is_ok()
    said = json.loads(got.body)
    many = [v for n, v in said["headers"] if n.lower() == "x-many"]
    assert many == ["one", "two", "three, four"], said
    assert said["target"] == "/seen-head?a=1&b=%2F%20", said


@both("the host the visitor asked for reaches the backend")
async def host(t, http):
    got = (await curl(at(t, http) + "/seen-head", "-H", "Host: shop.example:81", http=http)).is_ok()
    said = json.loads(got.body)
    hosts = [v for n, v in said["headers"] if n.lower() == "host"]
    assert hosts == ["shop.example:81"], said


@case("curl h1: hop-by-hop headers end at the entry", ENTRIES)
async def hop_by_hop(t):
    flags = ["-H", "Connection: keep-alive, X-Private", "-H", "X-Private: 1", "-H", "Keep-Alive: timeout=5"]
    flags += ["-H", "Proxy-Authorization: Basic eA==", "-H", "X-Public: 2", "-H", "X-Forwarded-For: 6.6.6.6"]
    got = (await curl(at(t, "1.1") + "/seen-head", *flags)).is_ok()
    said = dict((n.lower(), v) for n, v in json.loads(got.body)["headers"])
    for name in ("x-private", "keep-alive", "proxy-authorization"):
        assert name not in said, f"{name} reached the backend: {said}"
    assert said["x-public"] == "2", said
    assert "6.6.6.6" not in said.get("x-forwarded-for", ""), "an untrusted X-Forwarded-For was believed"
    assert "127.0.0.1" in said["x-forwarded-for"], said
    assert said["x-forwarded-proto"] == "http", said
    assert len(said["traceparent"]) == 55, said


@case("curl h1: traceparent passes", ENTRIES)
async def trace(t):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    got = (await curl(at(t, "1.1") + "/seen-head", "-H", f"traceparent: {trace}")).is_ok()
    said = dict((n.lower(), v) for n, v in json.loads(got.body)["headers"])
    assert said["traceparent"].split("-")[1] == trace.split("-")[1], said


@both("large headers both ways")
async def large(t, http):
    value = "w" * 16_000
    got = (await curl(at(t, http) + "/seen-head", "-H", f"X-Large: {value}", http=http)).is_ok()
    assert ["x-large", value] in [[n.lower(), v] for n, v in json.loads(got.body)["headers"]], "request header lost"
    got = (await curl(at(t, http) + "/big-header?n=30000", http=http)).is_ok()
    assert got.one("x-big") == b"v" * 30_000, "answer header lost"


@case("curl h1: header bytes beyond ASCII", ALL, http="1.1")
@case("curl h2: header bytes beyond ASCII", ALL, http="2")
async def odd_bytes(t, http):
    got = (await curl(at(t, http) + "/odd-bytes", http=http)).is_ok()
    assert got.one("x-odd") == b"\xe9t\xe9 \xff\x80", got.headers
    # The backend reads header bytes as Latin-1, one character a byte.
    got = (await curl(at(t, http) + "/seen-head", "-H", "X-Odd: grün ß", http=http)).is_ok()
    odd = [v for n, v in json.loads(got.body)["headers"] if n.lower() == "x-odd"]
    assert odd and odd[0].encode("latin-1") == "grün ß".encode(), odd


@case("curl h1: Expect: 100-continue", ALL)
async def expect(t):
    got = (
        await curl(at(t, "1.1") + "/digest", "-H", "Expect: 100-continue", "--data-binary", "@-",
                   "--expect100-timeout", "10", stdin=b"x" * 100_000)
    ).is_ok()
    assert json.loads(got.body)["length"] == 100_000, got.body
    assert got.interim == 1, f"{got.interim} interim answers"
    assert got.seconds < 5, "curl had to give up waiting for 100 Continue"


# Not direct in HTTP/2: nghttpx turns such an answer into a reset.
@case("curl h2: an early answer stops the upload", ENTRIES, http="2")
@case("curl h1: an early answer stops the upload", ALL, http="1.1")
async def early(t, http):
    note = f"early-{t.mode}-{http}"
    # Of unknown length: curl 7.88 ends an upload that it stops, which short of an announced
    # length is a protocol error in HTTP/2, and sometimes comes before the answer's body.
    flags = ["-T", "-", "-X", "POST", "-H", "Expect:"]
    got = await curl(at(t, http) + f"/early?note={note}", *flags, http=http, stdin=bytes(100_000_000))
    assert got.status == 413 and got.body == b"too much\n", (got.code, got.status, got.ran.errors)
    sent = (await t.backends.seen())[note]
    t.note(f"{sent / 1e6:.1f} MB were still sent")
    if t.mode != "direct":
        assert sent < 40_000_000, f"{sent} bytes were carried to a backend that had answered"


@case("curl h1: an answer cut by its backend is cut, with a length", ALL, http="1.1", framing="length", how="end")
@case("curl h1: an answer cut by its backend is cut, chunked", ALL, http="1.1", framing="chunked", how="end")
@case("curl h1: an answer reset by its backend is cut", ALL, http="1.1", framing="chunked", how="reset")
@case("curl h2: an answer cut by its backend is cut, with a length", ALL, http="2", framing="length", how="end")
@case("curl h2: an answer cut by its backend is cut, chunked", ENTRIES, http="2", framing="chunked", how="end")
@case("curl h2: an answer reset by its backend is cut", ALL, http="2", framing="chunked", how="reset")
async def cut(t, http, framing, how):
    got = await curl(at(t, http) + f"/cut?n=100000&framing={framing}&how={how}", http=http)
    assert got.code in CUTS, f"curl took a cut answer for whole: exit code {got.code}"
    if http == "2" and t.mode != "direct":
        assert got.code == H2_STREAM, f"exit code {got.code}: {got.ran.errors}"
    assert got.status == 200, got.status
    if how == "end":
        # What came before the cut is delivered.
        assert len(got.body) == 100_000, len(got.body)


@both("a backend that resets before its head is a 502")
async def no_head(t, http):
    got = await curl(at(t, http) + "/cut-head", http=http)
    if t.mode == "direct" and http == "1.1":
        assert got.code in (EMPTY_REPLY, RECEIVE_FAILED), got.code
        return
    got.is_ok(502)
    if t.mode != "direct":
        assert got.one("x-strait-error"), got.headers
        assert b"127.0.0.1" not in got.body, f"the answer names a private address: {got.body}"


@case("curl h1: no route is a 404 of ours", ENTRIES)
async def no_route(t):
    # A gRPC service takes gRPC only, so a lone one has no route for plain HTTP.
    from strait import Service

    world = await t.alone(f"no-route-{t.mode}", services=[Service("grpc", t.backends.grpc)])
    got = (await curl(f"http://{world.http}/hello")).is_ok(404)
    assert got.one("x-strait-error") == b"no_route", got.headers
    assert got.body.count(b"\n") == 1 and got.body.startswith(b"no_route: "), got.body


@case("curl h1: a backend that is down is a 502 at once", ENTRIES)
async def refused(t):
    from process import free_port
    from strait import Service

    world = await t.alone(f"refused-{t.mode}", services=[Service("http", free_port())])
    got = (await curl(f"http://{world.http}/hello")).is_ok(502)
    assert got.one("x-strait-error") == b"backend_refused", got.headers
    assert got.seconds < 2, f"{got.seconds:.2f} s"


@both("a visitor who leaves ends the backend's work")
async def leave(t, http):
    note = f"leave-{t.mode}-{http}"
    version = "--http2-prior-knowledge" if http == "2" else "--http1.1"
    visitor = await asyncio.create_subprocess_exec(
        "curl", "-sS", version, at(t, http) + f"/wait?ms=20000&note={note}", stderr=asyncio.subprocess.DEVNULL
    )
    await until("the backend has the request", lambda: _seen(t, f"{note}:began"))
    left = time.time()
    visitor.send_signal(signal.SIGKILL)
    await visitor.wait()
    when = await until("the backend sees that its visitor left", lambda: _seen(t, f"{note}:cancelled"), 5)
    t.note(f"{(when - left) * 1000:.0f} ms")
    assert when - left < 1.0, f"only after {when - left:.2f} s"


@both("a visitor who leaves in the middle of a stream ends it")
async def leave_stream(t, http):
    note = f"stream-{t.mode}-{http}"
    version = "--http2-prior-knowledge" if http == "2" else "--http1.1"
    visitor = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-o", "/dev/null", version, at(t, http) + f"/never-read?note={note}",
        stderr=asyncio.subprocess.DEVNULL,
    )
    await until("the backend streams", lambda: _seen(t, f"{note}:began"))
    await asyncio.sleep(0.3)
    left = time.time()
    visitor.send_signal(signal.SIGKILL)
    await visitor.wait()
    when = await until("the backend sees that its visitor left", lambda: _seen(t, f"{note}:cancelled"), 5)
    t.note(f"{(when - left) * 1000:.0f} ms")
    assert when - left < 1.0, f"only after {when - left:.2f} s"


async def _seen(t, key: str):
    return (await t.backends.seen()).get(key)


@both("a slow visitor gets every byte")
async def slow(t, http):
    got = (await curl(at(t, http) + "/bytes?n=12000000", "--limit-rate", "6M", http=http)).is_ok()
    assert len(got.body) == 12_000_000, len(got.body)
    t.note(f"{got.seconds:.1f} s")


@both("100 transfers of one curl at once", seconds=40)
async def parallel(t, http):
    version = "--http2-prior-knowledge" if http == "2" else "--http1.1"
    flags = ["--parallel", "--parallel-immediate", "--parallel-max", "100", "--max-time", "30"]
    urls = [f"{at(t, http)}/bytes?n={10_000 + n}" for n in range(100)]
    words = [word for url in urls for word in (url, "-o", "/dev/null")]
    ran = (await run("curl", "-sS", version, *flags, "-w", "%{http_code} %{size_download}\n", *words, seconds=40)).ok()
    lines = sorted(ran.text.split("\n")[:-1])
    assert lines == sorted(f"200 {10_000 + n}" for n in range(100)), lines[:5]
