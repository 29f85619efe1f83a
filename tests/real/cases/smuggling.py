"""Ambiguous requests before a backend that keeps every byte: nothing is smuggled, nothing hangs."""

import asyncio

import downgrades
import framing
from case import ENTRIES, case
from frames import Http2, headers, request
from framing import Passes, Refused
from recorder import Recorder
from strait import Service

# Short, so that what is left open ends with the case.
TIMES = '[timeouts]\nfirst_byte = "1s"\nheaders = "1s"\nbody_idle = "1s"\nkeep_alive_idle = "1s"\nanswer_head = "3s"\n'
BOUND, AT_ONCE = 8, 64


async def sent(port: int, pieces: list[bytes]) -> bytes:
    """What comes back for these pieces until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if piece is not pieces[-1]:
                await asyncio.sleep(0.02)
        while piece := await reader.read(1 << 16):
            answer += piece
    except ConnectionError:
        # A reset is an end, too.
        pass
    finally:
        writer.close()
    return answer


def statuses(answer: bytes) -> list[int]:
    """The final statuses of what came back, which holds answers and nothing else."""
    found = []
    while answer:
        head, end, answer = answer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert end and lines[0][:9] in (b"HTTP/1.1 ", b"HTTP/1.0 "), f"not an answer: {head!r}"
        status = int(lines[0][9:12])
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
        assert b"transfer-encoding" not in fields, f"an answer without a length: {head!r}"
        if status >= 200:
            found.append(status)
            # None of them is long: the answer to a HEAD has a length and no body.
            size = int(fields.get(b"content-length", 0))
            answer = answer[size:] if not answer.startswith(b"HTTP/") else answer
    return found


def judged(variant, number: int, recorder: Recorder, got: list[int]) -> str:
    """What is wrong with how one variant ended: what the backend saw, and the visitor's statuses."""
    mark = b"%04d" % number
    all_of = [seen for seen in recorder.requests if b"/" + mark in seen.target or mark in seen.all(b"x-id")]
    ours = [seen for seen in all_of if not seen.target.startswith(b"/after/")]
    if hidden := [seen.target for seen in ours if seen.target.startswith(b"/smuggled")]:
        return f"smuggled: {hidden}"
    if len(got) > 1 and b"/after/" not in variant.wire:
        return f"answered {len(got)} times: {got}"
    if isinstance(variant.want, Passes):
        body, target = (text.replace(b"IDID", mark) for text in (variant.want.body, variant.want.target))
        if [(s.target, s.body, s.whole, s.all(b"host")) for s in ours] != [(target, body, True, [variant.want.host])]:
            return f"the backend saw {ours}"
        for seen in ours:
            if seen.trailers or seen.all(b"connection") or seen.all(b"upgrade"):
                return f"a field that must not travel: {seen}"
        return "" if got[:1] == [200] else "refused"
    if any(seen.whole for seen in ours) or (ours and isinstance(variant.want, Refused)):
        return f"the backend saw {ours}"
    return "" if all(400 <= status < 600 for status in got) else "passed"


async def by_http1(port: int, recorder: Recorder, variant, number: int) -> str:
    """Sends a variant, every second one torn in two; what is wrong."""
    wire = variant.wire.replace(b"IDID", b"%04d" % number)
    # Torn after the head where there is more, else in the middle.
    at = wire.find(b"\r\n\r\n") + 4
    at = at if 3 < at < len(wire) else len(wire) // 2
    answer = await sent(port, [wire[:at], wire[at:]] if number % 2 else [wire])
    wrong = judged(variant, number, recorder, statuses(answer))
    return f"{wrong}; the visitor saw {answer[:300]!r}" if wrong else ""


async def by_http2(port: int, recorder: Recorder, variant, number: int) -> str:
    """Sends a variant on stream 1, then a fine request on stream 3; what is wrong."""
    mark = b"%04d" % number
    connection = await Http2.open(port)
    try:
        connection.send(variant.wire.replace(b"IDID", mark))
        stream = await connection.over(1, BOUND)
        wrong = judged(variant, number, recorder, [stream.status] if stream.status else [])
        if not wrong and isinstance(variant.want, Refused) and variant.lives and not (stream.status or stream.reset):
            wrong = "neither a status nor a reset"
        if variant.lives is None:
            pass
        elif variant.lives:
            connection.send(headers(3, request(b"/after/" + mark)))
            if (await connection.over(3, BOUND)).status != 200:
                wrong += " the connection is lost"
        elif connection.goaway is None and not connection.closed:
            wrong += " the connection goes on"
        said = f"{stream}, GOAWAY {connection.goaway}, closed {connection.closed}"
        return f"{wrong}; the visitor saw {said}" if wrong else ""
    finally:
        await connection.close()


async def tried(variants, send, port: int, recorder: Recorder) -> tuple[int, list[str]]:
    """Sends every variant twice; what is wrong with each."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(variant, number: int) -> str:
        async with room:
            try:
                wrong = await asyncio.wait_for(send(port, recorder, variant, number), BOUND)
            except TimeoutError:
                wrong = f"not ended after {BOUND} s"
        return f"{variant.name}: {wrong}" if wrong else ""

    twice = [v for v in variants for _ in range(2)]
    found = await asyncio.gather(*(one(v, number) for number, v in enumerate(twice)))
    return len(twice), [wrong for wrong in found if wrong]


async def unharmed(pair) -> None:
    """Nothing is left, the tunnel is the first one, nothing has panicked."""
    await pair.clean(5)
    status = await pair.status("client")
    assert status["totals"]["reconnects"] == 0 and len(status["sessions"]) == 1, status["totals"]
    for side, node in pair.node.items():
        assert node.alive, f"the {side} has ended"
        assert "panicked" not in node.log.read_text(), f"the {side} panicked:\n{node.tail()}"


async def attacked(t, variants, send):
    async with Recorder() as recorder:
        world = await t.alone(f"smuggling-{t.mode}", services=[Service("http", recorder.port)], settings=TIMES)
        port = world.pair.entry[t.mode.split("-")[0]]
        # The backend does see a second request where one is meant: else nothing below means anything.
        plain = sent(port, [framing.post(b"", framing.HIDDEN).replace(b"IDID", b"9999")])
        (count, wrong), _ = await asyncio.gather(tried(variants, send, port, recorder), plain)
        t.note(f"{count} tries, {len(recorder.requests)} requests at the backend")
        assert b"/smuggled/9999" in [seen.target for seen in recorder.requests], "hidden requests are not seen"
        violations = recorder.violations()
        assert not wrong and not violations, "\n".join([f"{len(wrong)} of {count}", *wrong, *violations])
        await unharmed(world.pair)


for FAMILY in framing.FAMILIES:
    case(f"no request is smuggled: {FAMILY}", ENTRIES, seconds=60, variants=framing.variants(FAMILY), send=by_http1)(attacked)
for FAMILY in downgrades.FAMILIES:
    case(f"no request is smuggled: HTTP/2, {FAMILY}", ENTRIES, seconds=60, variants=downgrades.variants(FAMILY), send=by_http2)(attacked)
