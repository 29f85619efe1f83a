"""Proxies before an entry: whom they may speak for, and what the service and the log learn of the visitor."""

import asyncio
import contextlib
import json
import socket
import ssl

import stubs
from case import ENTRIES, case
from cases.grpc_calls import Probe
from cases.observe import NEAR
from cases.websocket import at
from curl import curl
from haproxy import Frontend, haproxy
from process import certificate, run, until
from proxy_headers import LOCAL, TCP4, TCP6, addresses, bad, binary, field, good, line, nameless
from strait import Service, unchunk

pb, _ = stubs.load()

# Where a visitor is: the proxies are at 127.0.0.1.
VISITOR = "127.0.0.2"
FORGED = [word for field in ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "X-Forwarded-Host: forged.example",
                             "Forwarded: for=6.6.6.6;proto=https") for word in ("-H", field)]


async def pair(t, name: str, settings: str = "", **keys):
    """A pair whose entries have these keys; its access log is told by `last`."""
    world = await t.alone(f"{name}-{t.mode}", services=[Service("http", t.backends.http)],
                          entry_keys=keys, settings=settings)
    return world.pair, world.pair.entry[NEAR[t.mode]]


async def seen(port: int, *flags: str, scheme: str = "http", http: str = "1.1") -> dict[str, str]:
    """What of a visitor's request reaches the service: its forwarding fields, each at most once."""
    got = (await curl(f"{scheme}://127.0.0.1:{port}/seen-head", "--interface", VISITOR, *flags, http=http)).is_ok()
    found = [(n.lower(), v) for n, v in json.loads(got.body)["headers"] if n.lower().removeprefix("x-").startswith("forwarded")]
    assert len(dict(found)) == len(found), found
    return dict(found)


async def callers(t, pair, count: int) -> list[str]:
    """Who asked, by the access log of the entry's side, without ports."""
    lines = await until(f"{count} lines", lambda: (all := pair.lines(NEAR[t.mode]))[count - 1 :] and all, 5)
    return [line["caller"].rpartition(":")[0] or line["caller"] for line in lines]


@case("a trusted proxy speaks for its visitors, nobody else does", ENTRIES)
async def trusted(t):
    it, port = await pair(t, "trusted", '[limits]\nmax_uri = "256B"\n', trusted_proxies=["127.0.0.1", "::1"])
    web = Frontend(port, "http", rules=("option forwardfor", "http-request set-header X-Forwarded-Proto https"))
    # Two proxies, one behind the other.
    far = Frontend(web.port, "http", rules=("option forwardfor",))
    await haproxy(t, it.name, web, far)
    for http in ("1.1", "2"):
        own = await seen(port, *FORGED, http=http)
        assert own == {"x-forwarded-for": VISITOR, "x-forwarded-proto": "http", "x-forwarded-host": f"127.0.0.1:{port}"}, own
    # What the proxy was told it passes on, too: the right end is what it saw itself.
    passed = await seen(web.port, *FORGED)
    assert passed == {"x-forwarded-for": f"6.6.6.6, {VISITOR}, 127.0.0.1", "x-forwarded-proto": "https",
                      "x-forwarded-host": "forged.example"}, passed
    chained = await seen(far.port)
    assert chained["x-forwarded-for"] == f"{VISITOR}, 127.0.0.1, 127.0.0.1", chained
    assert chained["x-forwarded-host"] == f"127.0.0.1:{far.port}", chained
    # What an entry refuses itself, it notes of the visitor as well.
    (await curl(f"http://127.0.0.1:{web.port}/" + "x" * 300, "--interface", VISITOR)).is_ok(414)
    assert await callers(t, it, 5) == [VISITOR] * 5
    line = it.lines(NEAR[t.mode])[2]
    assert line["caller"] == VISITOR, f"a port that nobody said: {line}"


@case("without trusted proxies a proxy is the visitor", ENTRIES)
async def untrusted(t):
    it, port = await pair(t, "untrusted", trusted_proxies=["10.0.0.0/8"])
    web = Frontend(port, "http", rules=("option forwardfor", "http-request set-header X-Forwarded-Proto https"))
    await haproxy(t, it.name, web)
    passed = await seen(web.port)
    assert passed == {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http",
                      "x-forwarded-host": f"127.0.0.1:{web.port}"}, passed
    assert await callers(t, it, 1) == ["127.0.0.1"]


REFUSED = "strait_proxy_headers_refused_total"
QUICK = '[timeouts]\nfirst_byte = "1s"\n'
ASK = b"GET /seen-head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@case("haproxy names the visitor by the PROXY protocol: every protocol, in clear and over TLS", ENTRIES, seconds=60)
async def named(t):
    cert, key = await certificate("proxied.test")
    keys = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}
    clear = await t.alone(f"named-{t.mode}", entry_keys=keys)
    secret = await t.alone(f"named-tls-{t.mode}", entry_keys=keys, certificate=(cert, key))
    ports = [world.pair.entry[NEAR[t.mode]] for world in (clear, secret)]
    words = ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c")
    fronts = [Frontend(port, server=word) for port in ports for word in words]
    await haproxy(t, f"named-{t.mode}", *fronts)
    for front in fronts:
        scheme, flags = ("https", ["--cacert", str(cert)]) if front.to == ports[1] else ("http", [])
        for http in ("1.1", "2"):
            version = "2" if http == "2" and scheme == "http" else "1.1"
            more = ["--http2"] if http == "2" and scheme == "https" else []
            found = await seen(front.port, *flags, *FORGED, *more, scheme=scheme, http=version)
            assert found == {"x-forwarded-for": VISITOR, "x-forwarded-proto": scheme,
                             "x-forwarded-host": f"127.0.0.1:{front.port}"}, (front.server, found)
    async with Probe(f"127.0.0.1:{fronts[1].port}") as probe:
        assert (await probe.Ask(pb.Question(payload=b"q"), timeout=10)).payload == b"q"
    async with at(f"127.0.0.1:{fronts[1].port}", "echo", local_addr=(VISITOR, 0)) as ws:
        await ws.send("through both")
        assert await ws.recv() == "through both"
    # grpcio cannot choose its own address.
    wanted = [VISITOR] * 6 + ["127.0.0.1", VISITOR]
    assert await callers(t, clear.pair, 8) == wanted and await callers(t, secret.pair, 6) == [VISITOR] * 6
    assert all(line["caller"].rpartition(":")[2] != "0" for line in clear.pair.lines(NEAR[t.mode])), "a port was said"
    for world in (clear, secret):
        assert (await world.pair.metrics(NEAR[t.mode]))[REFUSED] == 0


@contextlib.asynccontextmanager
async def together():
    """Tasks side by side; the first failure among them is the case's."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def answered(port: int, *pieces: bytes, pause: float = 0.0, shut: bool = False, source: str = "") -> bytes:
    """All that comes back for these pieces until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0) if source else None)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        if shut:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(-1), 8)
    except ConnectionError:
        # A reset is an end, too.
        pass
    finally:
        writer.close()
    return answer


def asked(answer: bytes) -> str:
    """The visitor, as the service was told."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), f"not served: {answer[:200]!r}"
    body = unchunk(body) if b"chunked" in head.lower() else body
    [visitor] = [value for name, value in json.loads(body)["headers"] if name.lower() == "x-forwarded-for"]
    return visitor


@case("headers of the PROXY protocol: however they come, and what follows them at once", ENTRIES, seconds=40)
async def headers(t):
    it, port = await pair(t, "headers", QUICK, proxy_protocol=True, trusted_proxies=["127.0.0.1"])
    async with together() as group:
        for source in ("198.51.100.7", "2001:db8::7"):
            tries = {name: [header + ASK] for name, header in good(source).items()}
            tries |= {f"{name}, in two": [header, ASK] for name, header in good(source).items()}
            tries |= {f"{name}, torn": [header[:9], header[9:] + ASK] for name, header in good(source).items()}
            for name, pieces in tries.items():
                group.create_task(_is(name, answered(port, *pieces, pause=0.05), source))
            whole = binary(addresses(source), family=TCP6 if ":" in source else TCP4)
            for header in (line(source), whole):
                drops = [bytes([byte]) for byte in header + ASK]
                group.create_task(_is("byte by byte", answered(port, *drops, pause=0.001), source))
        for name, header in nameless().items():
            group.create_task(_is(name, answered(port, header + ASK), "127.0.0.1"))
        # What the visitor says of others behind it is its own text, whether it is named or not.
        lie = ASK.replace(b"Host: a", b"Host: a\r\nX-Forwarded-For: 6.6.6.6")
        group.create_task(_is("a forged field", answered(port, line("198.51.100.7") + lie), "198.51.100.7"))
        group.create_task(_is("a forged field", answered(port, binary(b"", LOCAL, 0) + lie), "127.0.0.1"))
        # A proxy that the header names is believed about those behind it.
        group.create_task(_is("a proxy", answered(port, line("127.0.0.1") + lie), "6.6.6.6, 127.0.0.1"))
    ran = (await run("curl", "-sS", "--haproxy-protocol", "--interface", "127.0.0.1", f"http://127.0.0.1:{port}/hello")).ok()
    assert ran.text == "hello\n", ran.text
    assert (await it.metrics(NEAR[t.mode]))[REFUSED] == 0


async def _is(name: str, answer, visitor: str) -> None:
    found = await answer
    assert found, f"{name}: refused"
    assert (found := asked(found)) == visitor, f"{name}: {found} instead of {visitor}"


@case("what is no header of the PROXY protocol is closed and counted", ENTRIES, seconds=40)
async def refused(t):
    it, port = await pair(t, "no-header", QUICK, proxy_protocol=True, trusted_proxies=["127.0.0.1"])
    side, count = NEAR[t.mode], 0

    async def tried(what: str, *pieces: bytes, shut: bool = False, source: str = "") -> None:
        answer = await answered(port, *pieces, shut=shut, source=source)
        assert answer == b"", f"{what} was answered: {answer[:200]!r}"

    async with together() as group:
        for name, row in bad().items():
            # Whatever follows must not be taken for the header or served.
            group.create_task(tried(name, row + ASK))
            count += 1
        for header in (line("198.51.100.7"), binary(addresses("198.51.100.7") + field(4, b"12"))):
            for end in range(1, len(header)):
                group.create_task(tried(f"cut after {end}", header[:end], shut=True))
                count += 1
            # Nobody waits for the rest for longer than for a first byte.
            group.create_task(tried("late", header[:-1]))
            count += 1
        group.create_task(tried("silence", b""))
        count += 1
        group.create_task(tried("a stranger", line("198.51.100.7") + ASK, source=VISITOR))
        count += 1
        # A load balancer that looks whether the port is open does no wrong.
        group.create_task(tried("a look", b"", shut=True))
    assert asked(await answered(port, line("198.51.100.7") + ASK)) == "198.51.100.7"
    assert (await it.metrics(side))[REFUSED] == count, (await it.metrics(side))[REFUSED]
    lines = await until("a line", lambda: it.lines(side), 5)
    assert [line["caller"] for line in lines] == ["198.51.100.7:4000"], lines
    await it.clean()


@case("a TLS hello right behind the header of the PROXY protocol", ENTRIES)
async def hello(t):
    cert, key = await certificate("hello.test")
    world = await t.alone(f"hello-{t.mode}", entry_keys={"proxy_protocol": True}, certificate=(cert, key))
    port = world.pair.entry[NEAR[t.mode]]
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cafile=str(cert)).wrap_bio(came, goes, server_hostname="hello.test")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line("2001:db8::7"))

    async def over(step, *arguments):
        while True:
            try:
                done = step(*arguments)
            except ssl.SSLWantReadError:
                done = None
            # The first time this is one write with the header.
            writer.write(goes.read())
            if done is not None:
                return done
            came.write(await asyncio.wait_for(reader.read(1 << 16), 5) or b"")

    await over(lambda: tls.do_handshake() or True)
    await over(tls.write, ASK)
    answer = b""
    while b"headers" not in answer.partition(b"\r\n\r\n")[2]:
        answer += await over(tls.read, 1 << 16)
    writer.close()
    assert asked(answer) == "2001:db8::7"
