"""A row: what a hostile peer sends, and what everybody gets."""

import asyncio
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from hostile.stage import Stage, answer_one, serve_one
from hostile.visitors import VISITORS, by_http
from process import until

# Rows that play at once: most of them wait for one another's processes.
AT_ONCE = 6
PLAYED = itertools.count(1)


@dataclass
class Row:
    """One line of a table. `send` gets the number of the request under attack: that of the
    visitor whom the peer answers, or else a new one of the peer's own."""

    name: str
    send: Callable
    visit: str = ""  # the protocol of the visitor under attack
    shown: tuple = ()  # what that visitor may be shown
    resets: tuple | None = None  # reasons of the resets that the peer gets for the number
    violations: tuple = (0,)  # how many may be counted
    ended: tuple[str, str] | None = None  # how the session ends: the call's status, words of its text
    check: Callable | None = None  # looks at the stage, the peer and what was shown
    waits: bool = False  # for an answer to what is sent


async def play(row: Row, role: str) -> None:
    """Plays one row with a node of its own."""
    stage = Stage(f"peer-{role}-{next(PLAYED)}-" + re.sub(r"\W+", "-", row.name)[:40], role)
    try:
        await stage.start()
        await _play(row, stage)
        await stage.healthy()
    finally:
        await stage.stop()


async def _play(row: Row, stage: Stage) -> None:
    peer = await stage.greeted()
    bystander = asyncio.ensure_future(by_http(stage.port, "/hostile/bystander"))
    await peer.opened("/hostile/bystander")
    target, no = None, 0
    if row.visit:
        target = asyncio.ensure_future(VISITORS[row.visit](stage.port, "/hostile/target"))
        no = (await peer.opened("/hostile/target")).number
    else:
        no = peer.number()
    sent = row.send(no)
    await peer.send(*(sent if isinstance(sent, list) else [sent]))
    if row.ended:
        await ended(row, peer)
        # The node gives its goodbye a second to be read.
        lost = await asyncio.wait_for(bystander, 3)
        assert lost.what == 502, f"the bystander was shown {lost}"
    else:
        await peer.settle()
        assert not peer.end, f"the session ended: {peer.end}"
        await answer_one(peer, "/hostile/bystander")
        fine = await asyncio.wait_for(bystander, 3)
        assert (fine.what, fine.body) == (200, b"fine\n"), f"the bystander was shown {fine}"
    shown = await asyncio.wait_for(target, 3) if target else None
    if shown:
        assert shown.what in row.shown, f"the visitor was shown {shown}, not {row.shown}"
    if row.waits:
        await until("the peer is answered", lambda: peer.of("http_response") or peer.of("reset"), 3, 0.005)
    await soon(lambda: resets(row, peer, no))
    await counted(row, stage)
    if row.check:
        await soon(lambda: row.check(stage, peer, shown))
    await peer.bye()
    if row.ended:
        again = await stage.greeted(connection=2)
        await serve_one(stage, again, "/hostile/again")
        await again.bye()


async def soon(check, seconds: float = 3) -> None:
    """Waits until a check holds: what the node answers comes after it has taken what was sent."""
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(0.01)


def resets(row: Row, peer, no: int) -> None:
    """The peer got the resets that the row names, for the request under attack."""
    got = tuple(reason for number, reason in peer.resets() if number == no)
    assert row.resets in (None, got), f"resets {got}, not {row.resets}"


async def ended(row: Row, peer) -> None:
    """The session ends as the row says."""
    end = await peer.ended(2)
    code, words = row.ended
    assert re.search(words, end.text), f"the session ended with {end}, not with {words!r}"
    assert end.code in ("", code), f"the session ended with {end}, not {code}"


async def counted(row: Row, stage: Stage) -> None:
    """The violations are counted, in /status and in /metrics alike."""
    count = (await stage.node.figures())["totals"]["violations"]
    assert count in row.violations, f"{count} violations were counted, not {row.violations}"
    metric = (await stage.node.metrics(stage.role))["strait_violations_total"]
    assert metric == count, f"/metrics counts {metric} violations, /status {count}"


async def play_all(t, rows: list[Row]) -> None:
    """Plays the rows of a table, several at once, and names those that fail."""
    role = t.mode.split("-")[0]
    turns, failures = asyncio.Semaphore(AT_ONCE), []

    async def one(row: Row) -> None:
        async with turns:
            try:
                await play(row, role)
            except (AssertionError, TimeoutError) as error:
                failures.append(f"{row.name}: {type(error).__name__} {error!s:.700}")

    await asyncio.gather(*(one(row) for row in rows))
    t.note(f"{len(rows) - len(failures)} of {len(rows)} rows")
    assert not failures, "\n  ".join(["rows that differ:", *failures])
