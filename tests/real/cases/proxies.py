"""Proxies before an entry: whom they may speak for, and what the service and the log learn of the visitor."""

import json

from case import ENTRIES, case
from cases.observe import NEAR
from curl import curl
from haproxy import Frontend, haproxy
from process import until
from strait import Service

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
