"""The client of the interoperability tests, made with grpcio.

usage: client.py HOST:PORT

Prints a line for each case: `ok NAME` or `FAIL NAME: what came`.
"""

import asyncio
import pathlib
import sys

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import stubs  # noqa: E402

pb, services = stubs.load(pathlib.Path(__file__).resolve().parent / "test.proto")
SECONDS = 10
REQUESTS, RESPONSES = (27182, 8, 1828, 45904), (31415, 9, 2653, 58979)
LARGE = (271828, 314159)
INITIAL, TRAILING = ("x-grpc-test-echo-initial", "test_initial_metadata_value"), ("x-grpc-test-echo-trailing-bin", b"\xab" * 3)
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
GZIP = grpc.Compression.Gzip
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def same(got, wanted) -> None:
    if got != wanted:
        raise AssertionError(f"{got!r:.200} instead of {wanted!r:.200}")


def payload(size: int):
    return pb.Payload(body=bytes(size))


def large(**more):
    return pb.SimpleRequest(response_size=LARGE[1], payload=payload(LARGE[0]), **more)


def output(size: int, request: int = 0, **more):
    wanted = pb.ResponseParameters(size=size, **more)
    return pb.StreamingOutputCallRequest(response_parameters=[wanted], payload=payload(request))


async def status(call) -> tuple[str, str]:
    """How a call ends that must fail."""
    try:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
            return (await call.code()).name, await call.details()
        await call
    except asyncio.CancelledError:
        return "CANCELLED", ""
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details()
    return "OK", ""


@case
async def empty_unary(stub):
    same(await stub.EmptyCall(pb.Empty(), timeout=SECONDS), pb.Empty())


@case
async def large_unary(stub, **options):
    same((await stub.UnaryCall(large(), timeout=SECONDS, **options)).payload.body, bytes(LARGE[1]))


@case
async def client_streaming(stub, **options):
    async def feed():
        for size in REQUESTS:
            yield pb.StreamingInputCallRequest(payload=payload(size))

    got = await stub.StreamingInputCall(feed(), timeout=SECONDS, **options)
    same(got.aggregated_payload_size, sum(REQUESTS))


@case
async def server_streaming(stub, **more):
    wanted = [pb.ResponseParameters(size=size, **more) for size in RESPONSES]
    request = pb.StreamingOutputCallRequest(response_parameters=wanted)
    got = [r.payload.body async for r in stub.StreamingOutputCall(request, timeout=SECONDS)]
    same(got, [bytes(size) for size in RESPONSES])


@case
async def ping_pong(stub):
    call = stub.FullDuplexCall(timeout=SECONDS)
    for request, response in zip(REQUESTS, RESPONSES):
        await call.write(output(response, request))
        same((await call.read()).payload.body, bytes(response))
    await call.done_writing()
    same((await call.read() is grpc.aio.EOF, await call.code()), (True, grpc.StatusCode.OK))


@case
async def empty_stream(stub):
    call = stub.FullDuplexCall(timeout=SECONDS)
    await call.done_writing()
    same((await call.read() is grpc.aio.EOF, await call.code()), (True, grpc.StatusCode.OK))


@case
async def cancel_after_begin(stub):
    call = stub.StreamingInputCall(timeout=SECONDS)
    await call.wait_for_connection()
    call.cancel()
    same((await call.code()).name, "CANCELLED")


@case
async def cancel_after_first_response(stub):
    call = stub.FullDuplexCall(timeout=SECONDS)
    await call.write(output(RESPONSES[0], REQUESTS[0]))
    same((await call.read()).payload.body, bytes(RESPONSES[0]))
    call.cancel()
    same((await call.code()).name, "CANCELLED")


@case
async def timeout_on_sleeping_server(stub):
    # The server would answer after a second.
    call = stub.FullDuplexCall(timeout=0.05)
    try:
        await call.write(output(RESPONSES[0], REQUESTS[0], interval_us=1_000_000))
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass  # It may be over already.
    same((await status(call))[0], "DEADLINE_EXCEEDED")


@case
async def custom_metadata(stub):
    async def check(call):
        first, last = await call.initial_metadata(), await call.trailing_metadata()
        same((first.get(INITIAL[0]), last.get(TRAILING[0])), (INITIAL[1], TRAILING[1]))

    call = stub.UnaryCall(large(), metadata=(INITIAL, TRAILING), timeout=SECONDS)
    same(len((await call).payload.body), LARGE[1])
    await check(call)
    call = stub.FullDuplexCall(metadata=(INITIAL, TRAILING), timeout=SECONDS)
    await call.write(output(LARGE[1], LARGE[0]))
    same(len((await call.read()).payload.body), LARGE[1])
    await call.done_writing()
    same(await call.read(), grpc.aio.EOF)
    await check(call)


@case
async def status_code_and_message(stub):
    wanted = pb.EchoStatus(code=2, message="test status message")
    same(await status(stub.UnaryCall(pb.SimpleRequest(response_status=wanted), timeout=SECONDS)), ("UNKNOWN", wanted.message))
    call = stub.FullDuplexCall(timeout=SECONDS)
    await call.write(pb.StreamingOutputCallRequest(response_status=wanted))
    same(await status(call), ("UNKNOWN", wanted.message))


@case
async def special_status_message(stub):
    wanted = pb.EchoStatus(code=2, message=SPECIAL)
    same(await status(stub.UnaryCall(pb.SimpleRequest(response_status=wanted), timeout=SECONDS)), ("UNKNOWN", SPECIAL))


@case
async def unimplemented_method(stub):
    same((await status(stub.UnimplementedCall(pb.Empty(), timeout=SECONDS)))[0], "UNIMPLEMENTED")


@case
async def unimplemented_service(stub):
    other = services.UnimplementedServiceStub(stub.channel)
    same((await status(other.UnimplementedCall(pb.Empty(), timeout=SECONDS)))[0], "UNIMPLEMENTED")


@case
async def client_compressed_unary(stub):
    await large_unary(stub, compression=GZIP)
    await large_unary(stub)


@case
async def client_compressed_streaming(stub):
    await client_streaming(stub, compression=GZIP)


@case
async def server_compressed_unary(stub):
    for compressed in (True, False):
        request = large(response_compressed=pb.BoolValue(value=compressed))
        same(len((await stub.UnaryCall(request, timeout=SECONDS)).payload.body), LARGE[1])


@case
async def server_compressed_streaming(stub):
    await server_streaming(stub, compressed=pb.BoolValue(value=True))


async def main() -> None:
    async with grpc.aio.insecure_channel(sys.argv[1], options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = services.TestServiceStub(channel)
        stub.channel = channel
        for name, function in CASES.items():
            try:
                await asyncio.wait_for(function(stub), SECONDS)
                print(f"ok {name}", flush=True)
            except (AssertionError, grpc.aio.AioRpcError, TimeoutError, asyncio.CancelledError) as error:
                print(f"FAIL {name}: {type(error).__name__} {error!s:.300}".replace("\n", " "), flush=True)


asyncio.run(main())
