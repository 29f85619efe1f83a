"""gRPC with grpcio on both ends."""

import asyncio
import hashlib
import json
import random
import time

import grpc
from google.rpc import error_details_pb2, status_pb2

import stubs
from case import case
from process import until

pb, services = stubs.load()
OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # A channel of its own for each case.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


class Probe:
    """A channel and its stub."""

    def __init__(self, address: str, **options):
        self.channel = grpc.aio.insecure_channel(address, options=OPTIONS, **options)

    async def __aenter__(self):
        return services.ProbeStub(self.channel)

    async def __aexit__(self, *_):
        await self.channel.close()


async def seen(t, key: str):
    """What the backend noticed."""
    async with Probe(f"127.0.0.1:{t.backends.grpc}") as probe:
        return json.loads((await probe.Ask(pb.Question(what="seen"))).text).get(key)


async def code_of(call) -> grpc.aio.AioRpcError:
    """The error of a call that must fail."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call succeeded")


@case("grpc: unary")
async def unary(t):
    async with Probe(t.world.grpc) as probe:
        for size in (0, 1, 1000, 70_000, 2_000_000):
            payload = random.Random(size).randbytes(size)
            reply = await probe.Ask(pb.Question(payload=payload, count=7), timeout=10)
            assert reply.payload == payload and reply.number == 7, f"{size} bytes came back changed"


@case("grpc: client stream")
async def client_stream(t):
    async with Probe(t.world.grpc) as probe:
        pieces = [random.Random(n).randbytes(n * 37) for n in range(200)]

        async def feed():
            for piece in pieces:
                yield pb.Question(payload=piece)

        reply = await probe.Collect(feed(), timeout=15)
        assert (reply.number, reply.sha256) == (200, hashlib.sha256(b"".join(pieces)).hexdigest()), reply


@case("grpc: server stream, in order")
async def server_stream(t):
    async with Probe(t.world.grpc) as probe:
        numbers = [r.number async for r in probe.Expand(pb.Question(count=500, size=300), timeout=15)]
        assert numbers == list(range(500)), numbers[:20]


@case("grpc: both stream, in turns")
async def bidirectional(t):
    async with Probe(t.world.grpc) as probe:
        call = probe.Chat(timeout=20)
        for number in range(200):
            await call.write(pb.Question(count=number, payload=b"p" * number))
            reply = await call.read()
            assert reply.text == "ok" and reply.number == number and len(reply.payload) == number, reply
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


@case("grpc: a message is there before the stream has ended")
async def prompt(t):
    async with Probe(t.world.grpc) as probe:
        began, ages = time.monotonic(), []
        async for _ in probe.Expand(pb.Question(count=4, milliseconds=250), timeout=10):
            ages.append(time.monotonic() - began)
        assert ages[0] < 0.6 and ages[-1] > 0.7, f"messages were held back: {ages}"


@case("grpc: metadata both ways, binary too")
async def metadata(t):
    async with Probe(t.world.grpc) as probe:
        raw = bytes(range(256))
        sent = (("x-text", "one"), ("x-text", "two"), ("x-raw-bin", raw), ("x-spaces", "a b,c"))
        call = probe.Ask(pb.Question(what="metadata"), metadata=sent, timeout=10)
        got = json.loads((await call).text)
        for name, value in sent:
            assert [name, value.hex() if isinstance(value, bytes) else value] in got, f"{name} is missing: {got}"
        assert [v for k, v in got if k == "x-text"] == ["one", "two"], got
        first = await call.initial_metadata()
        assert first["x-first"] == "1" and first["x-raw-bin"] == raw, first
        last = await call.trailing_metadata()
        assert last.get_all("x-last") == ["2", "3"] and last["x-end-bin"] == b"\x00\xff", last


@case("grpc: status and its details")
async def status(t):
    async with Probe(t.world.grpc) as probe:
        error = await code_of(probe.Ask(pb.Question(what="status"), timeout=10))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        assert error.details() == "not like this: ü % 100", error.details()
        rich = status_pb2.Status.FromString(error.trailing_metadata()["grpc-status-details-bin"])
        detail = error_details_pb2.BadRequest()
        assert rich.details[0].Unpack(detail)
        assert detail.field_violations[0].description == "too odd: é", detail


@case("grpc: a status after messages, with trailing metadata")
async def late_status(t):
    async with Probe(t.world.grpc) as probe:
        call, numbers = probe.Expand(pb.Question(what="fail", count=3), timeout=10), []
        try:
            async for reply in call:
                numbers.append(reply.number)
            raise AssertionError("the call succeeded")
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.DATA_LOSS and error.details() == "lost it", error
            assert error.trailing_metadata()["x-last"] == "after messages", error
        assert numbers == [0, 1, 2], numbers


@case("grpc: unimplemented")
async def unimplemented(t):
    async with Probe(t.world.grpc) as probe:
        error = await code_of(probe.Missing(pb.Question(), timeout=10))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    channel = grpc.aio.insecure_channel(t.world.grpc, options=OPTIONS)
    error = await code_of(channel.unary_unary("/probe.v1.Probe/Absent")(b"", timeout=10))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    await channel.close()


@case("grpc: a deadline reaches the backend and ends the call")
async def deadline(t):
    note = f"deadline-{t.mode}"
    async with Probe(t.world.grpc) as probe:
        began = time.time()
        question = pb.Question(what="wait", payload=note.encode(), milliseconds=20_000)
        error = await code_of(probe.Ask(question, timeout=0.8))
        took = time.time() - began
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        assert 0.7 < took < 1.8, took
    remaining = await seen(t, f"{note}:remaining")
    assert remaining is not None and 0.1 < remaining <= 0.81, f"the backend was told {remaining} s"
    when = await until("the backend's call is cancelled", lambda: seen(t, f"{note}:cancelled"), 5)
    assert when - began < 2.0, when - began


@case("grpc: cancel reaches the backend, unary", kind="unary")
@case("grpc: cancel reaches the backend, server stream", kind="server")
@case("grpc: cancel reaches the backend, both stream", kind="both")
async def cancel(t, kind):
    note = f"cancel-{kind}-{t.mode}"
    question = pb.Question(what="wait", payload=note.encode(), milliseconds=20_000)
    async with Probe(t.world.grpc) as probe:
        if kind == "unary":
            call = probe.Ask(question)
            waiting = asyncio.ensure_future(_quiet(call))
        elif kind == "server":
            call = probe.Expand(question)
            assert (await call.read()).text == "begun"
        else:
            call = probe.Chat()
            await call.write(question)
        await until("the backend has the call", lambda: seen(t, f"{note}:began"), 5)
        left = time.time()
        call.cancel()
        when = await until("the backend's call is cancelled", lambda: seen(t, f"{note}:cancelled"), 5)
        t.note(f"{(when - left) * 1000:.0f} ms")
        assert when - left < 1.0, f"only after {when - left:.2f} s"
        if kind == "unary":
            await waiting


async def _quiet(call):
    try:
        await call
    except (asyncio.CancelledError, grpc.aio.AioRpcError):
        pass


@case("grpc: 50 MB up, digest", seconds=40)
async def up(t):
    total, block = hashlib.sha256(), random.Random(5).randbytes(1_000_000)

    async def feed():
        for number in range(50):
            piece = number.to_bytes(4, "big") + block[4:]
            total.update(piece)
            yield pb.Question(payload=piece)

    async with Probe(t.world.grpc) as probe:
        began = time.monotonic()
        reply = await probe.Collect(feed(), timeout=35)
        assert (reply.number, reply.length, reply.sha256) == (50, 50_000_000, total.hexdigest()), reply
        t.note(f"{50 / (time.monotonic() - began):.0f} MB/s")


@case("grpc: 50 MB down, every byte", seconds=40)
async def down(t):
    block, count = random.Random(9).randbytes(1 << 20)[:1_000_000], 0
    async with Probe(t.world.grpc) as probe:
        began = time.monotonic()
        async for reply in probe.Expand(pb.Question(count=50, size=1_000_000), timeout=35):
            assert reply.number == count and reply.payload == block, f"message {count} is wrong"
            count += 1
        assert count == 50, count
        t.note(f"{50 / (time.monotonic() - began):.0f} MB/s")


@case("grpc: gzip stays compressed")
async def gzip(t):
    async with Probe(t.world.grpc, compression=grpc.Compression.Gzip) as probe:
        payload = b"again and again " * 60_000
        reply = await probe.Ask(pb.Question(payload=payload), timeout=10)
        assert reply.payload == payload
        call = probe.Ask(pb.Question(what="metadata"), timeout=10)
        said = dict((k, v) for k, v in json.loads((await call).text))
        assert "gzip" in said.get("grpc-accept-encoding", "gzip"), said


@case("grpc: 200 calls at once on one channel", seconds=40)
async def many(t):
    async with Probe(t.world.grpc) as probe:

        async def one(number: int):
            payload = random.Random(number).randbytes(3000)
            reply = await probe.Ask(pb.Question(payload=payload, count=number), timeout=30)
            assert reply.number == number and reply.payload == payload, f"call {number} got another's answer"

        await asyncio.gather(*(one(n) for n in range(200)))


@case("grpc: a stream does not hold up short calls")
async def beside(t):
    async with Probe(t.world.grpc) as probe:
        stream = probe.Expand(pb.Question(count=1000, size=1000, milliseconds=20))
        assert (await stream.read()).number == 0
        began = time.monotonic()
        for number in range(50):
            assert (await probe.Ask(pb.Question(count=number), timeout=5)).number == number
        t.note(f"{(time.monotonic() - began) / 50 * 1000:.1f} ms a call")
        assert (await stream.read()).number == 1
        stream.cancel()
