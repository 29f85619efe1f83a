"""A hostile or broken peer that comes, leaves, comes again or falls silent.

In the mode server-entry the node under test is a server and the peer dials it; in client-entry
it is a client, and dials the peer.
"""

import asyncio
import contextlib
import re
import signal
import time

from case import ENTRIES, case
from cases.life import FAR, NEAR, in_flight, visit
from hostile import messages as m
from hostile.messages import pb
from hostile.stage import TOKENS, Stage, answer_one, serve_one
from hostile.visitors import CUT, by_http
from process import until

SERVER = ("server-entry",)
# A node gives up on a silent peer after a ping's interval and its timeout, and some time for a busy machine.
SILENCE = 25


@contextlib.asynccontextmanager
async def stage(t, name: str):
    """A node under test; nothing of it is left, and it is healthy in the end."""
    of = Stage(f"peer-{name}-{t.mode}", t.mode.split("-")[0])
    try:
        yield await of.start()
        await of.healthy()
    finally:
        await of.stop()


BEGINNINGS = {
    "a request": (lambda: m.request(1), "UNAUTHENTICATED", "not a Hello"),
    "an answer": (lambda: m.answer(2), "UNAUTHENTICATED", "not a Hello"),
    "a ping": (lambda: m.ping(1), "UNAUTHENTICATED", "not a Hello"),
    "an offer": (lambda: m.announcement(["hostile"]), "UNAUTHENTICATED", "not a Hello"),
    "an empty message": (lambda: b"", "UNAUTHENTICATED", "not a Hello"),
    "no version": (lambda: m.hello(version_min=0, version_max=0), "FAILED_PRECONDITION", r"speaks .* 1\.\.1, you offered 0\.\.0"),
    "newer versions": (lambda: m.hello(version_min=2, version_max=99), "FAILED_PRECONDITION", r"1\.\.1, you offered 2\.\.99"),
    "version 99": (lambda: m.hello(version_min=99, version_max=99), "FAILED_PRECONDITION", r"you offered 99\.\.99"),
    "random bytes": (lambda: b"\xff\xff\xff\xff\xff\xff\xff", "INTERNAL", ""),
}


@case("peer: what does not begin with a Hello of a common version is ended within a second", ENTRIES, seconds=30)
async def beginnings(t):
    async def one(name, first, code, words):
        async with stage(t, f"begin-{name.replace(' ', '-')}") as of:
            peer = await of.session()
            began = time.monotonic()
            await peer.send(first())
            end = await peer.ended(2)
            took = time.monotonic() - began
            assert re.search(words, end.text) and end.code in ("", code), f"{name}: {end}"
            assert took < 1, f"{name}: ended only after {took:.2f} s"
            await serve_one(of, await of.greeted(connection=2), "/hostile/again")

    await asyncio.gather(*(one(name, *row) for name, row in BEGINNINGS.items()))


CREDENTIALS = {
    "none": None, "empty": "", "wrong": "st_wrong", "right but for a letter": TOKENS["hostile"][:-1] + "y",
    "its beginning": TOKENS["hostile"][:20], "of 4 KiB": "x" * 4096, "of 20 KiB": "x" * 20_000,
}


@case("peer: every wrong token gets the same answer after the same time", SERVER, seconds=30)
async def credentials(t):
    async def one(name, token):
        async with stage(t, f"token-{name.replace(' ', '-')}") as of:
            began = time.monotonic()
            end = await of.line.dial(token).ended(3)
            said = [line for line in of.node.process.log.read_text().splitlines() if "credential" in line]
            assert len(said) == 1 and TOKENS["hostile"] not in said[0] and (not token or token not in said[0]), said
            return name, (end.code, end.text), time.monotonic() - began

    got = await asyncio.gather(*(one(*row) for row in CREDENTIALS.items()))
    assert len({answer for _, answer, _ in got}) == 1 and got[0][1][0] == "UNAUTHENTICATED", got
    assert all(0.3 <= took < 1 for _, _, took in got), got


@case("peer: a token that no header can hold gets nothing", SERVER, seconds=30)
async def oversized(t):
    async with stage(t, "token-1-MiB") as of:
        end = await of.line.dial("x" * (1 << 20)).ended(3)
        assert end.code not in ("OK", ""), end
        assert not (await of.node.figures())["routes"][2:], "a route was entered"


@case("peer: further wrong tokens from an address wait longer, right ones never", SERVER, seconds=30)
async def guesses(t):
    async with stage(t, "guesses") as of:
        times = []
        for _ in range(5):
            began = time.monotonic()
            assert (await of.line.dial("st_guess").ended(8)).code == "UNAUTHENTICATED"
            times.append(time.monotonic() - began)
        assert max(times[:3]) < times[4] and times[3] >= 0.6 and times[4] >= 1.2, times
        t.note(", ".join(f"{seconds:.1f} s" for seconds in times))
        guess = of.line.dial("st_guess")
        await serve_one(of, await of.greeted(), "/hostile/beside")
        assert not guess.end, "the holder of the token waited for somebody's guess"
        await guess.bye()


@case("peer: of one client's connections the newest stays, and an old one's end takes nothing from it", SERVER, seconds=30)
async def twice(t):
    async with stage(t, "twice") as of:
        old = await of.greeted(client_id="double", instance=b"one", connection=1)
        visitor = asyncio.ensure_future(by_http(of.port, "/hostile/before"))
        await old.opened("/hostile/before")
        new = await of.greeted(client_id="double", instance=b"one", connection=2)
        goaway = (await until("the old connection is told to go", old.goaways, 3))[0]
        assert goaway.reason == pb.REASON_CLIENT_LIMIT and "took over" in goaway.message, goaway
        await serve_one(of, new, "/hostile/during")
        await old.bye()
        # It can be tried again, and the new connection is there.
        await answer_one(new, "/hostile/before")
        assert (await asyncio.wait_for(visitor, 3)).what == 200

        async def one_left():
            return len((await of.node.figures())["sessions"]) == 2

        await until("the old session is gone", one_left, 3)
        await serve_one(of, new, "/hostile/after")
        # An older connection that comes late is the one that goes; a restarted client is newer.
        late = await of.session()
        await late.send(m.hello(client_id="double", instance=b"one", connection=1))
        await until("the late connection is told to go", late.goaways, 3)
        assert not new.goaways()
        await late.bye()
        # Its second tunnel is another one.
        second = await of.greeted(client_id="double", instance=b"one", connection=3, tunnel=1)

        async def both():
            return len((await of.node.figures())["sessions"]) == 3

        await until("both tunnels are there", both, 3)
        assert not new.goaways() and not second.goaways()
        restarted = await of.greeted(client_id="double", instance=b"two", connection=1)
        await until("the client before its restart is told to go", new.goaways, 3)
        await until("with all its tunnels", second.goaways, 3)
        await serve_one(of, restarted, "/hostile/restarted")


@case("peer: a route stays its token's, also while its owner is away", SERVER, seconds=30)
async def routes(t):
    async with stage(t, "routes") as of:
        both, http = [], [pb.HTTP]
        owned = [pb.Service(name="mine", hosts=["Mine.test"], path_prefix="/")]
        friend = await of.line.dial(TOKENS["friend"]).greet(owned, client_id="friend-2")
        hostile = await of.greeted()
        for away in (False, True):
            for protocols in (both, http, [pb.GRPC, pb.WEBSOCKET]):
                grabs = [
                    pb.Service(name="friend", path_prefix="/friend", protocols=protocols),
                    pb.Service(name="other", path_prefix="/friend/", protocols=protocols),
                    pb.Service(name="host", hosts=["mine.TEST"], protocols=protocols),
                ]
                before = len(hostile.of("config_sync"))
                await hostile.send(m.announcement(grabs, 2))
                await until("an answer", lambda: len(hostile.of("config_sync")) > before, 3, 0.005)
                refused = {r.service for r in hostile.refused() if "another token" in r.message}
                assert refused == {"friend", "other", "host"}, f"away: {away}, {protocols}: {hostile.refused()}"
            if not away:
                await of.others_are_served()
                for peer in (friend, of.friend):
                    await peer.bye()
                await until("the owner is away", lambda: _offline(of, "friend"), 3)
        assert (await by_http(of.port, "/friend/x")).what == 503
        of.friend = await of.line.dial(TOKENS["friend"]).greet(["friend"], client_id="friend")


async def _offline(of, service: str) -> bool:
    return any(r["service"] == service and not r["online"] for r in (await of.node.figures())["routes"])


@case("peer: it cannot answer for another session", SERVER, seconds=30)
async def stolen(t):
    async with stage(t, "stolen") as of:
        hostile = await of.greeted()
        visitor = asyncio.ensure_future(by_http(of.port, "/friend/secret"))
        asked = await of.friend.opened("/friend/secret")
        forged = m.answer(asked.number, body=b"stolen")
        forged.request_id, forged.client_id = asked.request_id, "friend"
        await hostile.send(forged, m.reset(asked.number), m.credit(asked.number, 10))
        await hostile.settle()
        await of.friend.send(m.answer(asked.number, body=b"friend\n"))
        shown = await asyncio.wait_for(visitor, 3)
        assert (shown.what, shown.body) == (200, b"friend\n"), shown
        assert (await of.node.figures())["totals"]["violations"] == 2
        await hostile.bye()


@case("peer: after its goaway requests go elsewhere", SERVER, seconds=30)
async def elsewhere(t):
    async with stage(t, "elsewhere") as of:
        leaving = await of.greeted(client_id="leaving")
        visitors = [asyncio.ensure_future(by_http(of.port, f"/hostile/{n}")) for n in range(2)]
        asked = [await leaving.opened(f"/hostile/{n}") for n in range(2)]
        staying = await of.greeted(client_id="staying")
        # "Open no more" leaves what is open alone; with a number, what is above it was not handled.
        await leaving.send(m.goaway())
        await leaving.settle()
        await serve_one(of, staying, "/hostile/new")
        first, second = sorted(request.number for request in asked)
        await leaving.send(m.answer(first, body=b"fine\n"), m.goaway(last_number=first))
        again = await until("the other request is opened elsewhere", lambda: staying.of("http_request")[1:], 3, 0.005)
        await staying.send(m.answer(again[0].number, body=b"fine\n"))
        shown = await asyncio.wait_for(asyncio.gather(*visitors), 3)
        assert [s.what for s in shown] == [200, 200], shown
        assert not [r for r in leaving.of("http_request") if b"new" in r.http_request.path]
        await leaving.bye()
        await staying.bye()


@case("peer: when it goes away visitors are told, and its return is noticed", ENTRIES, seconds=30)
async def gone(t):
    async with stage(t, "gone") as of:
        peer = await of.greeted()
        begun, asked = (asyncio.ensure_future(by_http(of.port, f"/hostile/{what}")) for what in ("begun", "asked"))
        await peer.opened("/hostile/asked")
        number = (await peer.opened("/hostile/begun")).number
        await peer.send(m.answer(number, headers=[("content-length", "100")], body=b"part", last=False))
        await peer.settle()
        await asyncio.sleep(0.1)
        left = time.monotonic()
        await peer.bye()
        shown = await asyncio.wait_for(asyncio.gather(begun, asked), 3)
        took = time.monotonic() - left
        # A request without a body may be tried again, which ends when nobody is there to try.
        assert shown[0].what == CUT and shown[1].what in (502, 503), shown
        assert took < 1, f"told only after {took:.2f} s"
        await serve_one(of, await of.greeted(connection=2), "/hostile/back")


@case("peer: one that is deaf, stopped, mute or does not read is noticed", ("once",), seconds=60)
async def silent(t):
    took = await asyncio.gather(
        *(_deaf(role, reads) for role in ("server", "client") for reads in (True, False)),
        *(_stopped(t, mode) for mode in ENTRIES),
        *(_mute(said) for said in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))),
    )
    t.note(", ".join(f"{seconds:.0f} s" for seconds in took))


async def _mute(said: bytes) -> float:
    """A connection to a server's tunnel port that never becomes a tunnel."""
    of = await Stage(f"peer-mute-{len(said)}", "server").start()
    try:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", of.node.tunnel)
        writer.write(said)
        with contextlib.suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), SILENCE)
        writer.close()
        # A tunnel that is as old lives.
        await of.healthy()
        return time.monotonic() - began
    finally:
        await of.stop()


async def _deaf(role: str, reads: bool) -> float:
    """A peer that answers no ping; or even reads nothing, while it sends and visitors upload."""
    of = await Stage(f"peer-deaf-{role}-{reads}", role).start()
    try:
        peer = await of.greeted()
        visitors = [asyncio.ensure_future(visit(of.port, f"/hostile/{n}", "POST", bytes(200_000))) for n in range(20)]
        await peer.opened("/hostile/19")
        began = time.monotonic()
        peer.answers_pings = False
        if not reads:
            peer.stop_reading()
        while not all(visitor.done() for visitor in visitors) and time.monotonic() - began < SILENCE:
            await peer.send(m.ping(1))
            await of.others_are_served()
            await asyncio.sleep(0.5)
        return await _all_told(of.node, role, visitors, began)
    finally:
        await of.stop()


async def _stopped(t, mode: str) -> float:
    """A strait that is stopped by a signal."""
    world = await t.alone(f"stopped-{mode}", mode)
    pair, near, far = world.pair, NEAR[mode], FAR[mode]
    visitors = [asyncio.ensure_future(visit(pair.entry[near], "/fast/wait?ms=60000", "POST", b"x")) for _ in range(100)]
    await in_flight(pair, near, 100)
    began = time.monotonic()
    pair.node[far].signal(signal.SIGSTOP)
    try:
        await asyncio.wait(visitors, timeout=SILENCE)
        took = await _all_told(pair, near, visitors, began)
    finally:
        pair.node[far].signal(signal.SIGCONT)
    await pair.joined(15)
    return took


async def _all_told(pair, side: str, visitors, began: float) -> float:
    """All visitors were told in time and within a second of one another; nothing is left."""
    await asyncio.wait(visitors, timeout=max(0.1, SILENCE - (time.monotonic() - began)))
    answers = [visitor.result() for visitor in visitors if visitor.done()]
    assert len(answers) == len(visitors), f"{len(visitors) - len(answers)} of {len(visitors)} visitors still wait"
    assert {status for status, _ in answers} == {502}, answers
    ends = sorted(when for _, when in answers)
    assert ends[-1] - ends[0] < 1, f"told over {ends[-1] - ends[0]:.2f} s"
    assert (await pair.status(side))["totals"]["open"] == 0, "requests are still held"
    return ends[-1] - began
