"""The server of the interoperability tests, made with grpcio; with health and reflection.

usage: server.py PORT
"""

import asyncio
import pathlib
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import stubs  # noqa: E402

pb, services = stubs.load(pathlib.Path(__file__).resolve().parent / "test.proto")
NAME = pb.DESCRIPTOR.services_by_name["TestService"].full_name
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


async def echo(context) -> None:
    """Sends the metadata back that asks for it."""
    for name, value in context.invocation_metadata():
        if name == INITIAL:
            await context.send_initial_metadata(((name, value),))
        if name == TRAILING:
            context.set_trailing_metadata(((name, value),))


async def end(request, context) -> None:
    """Ends the call with the status that the request wants."""
    if request.HasField("response_status"):
        wanted = request.response_status
        code = next(code for code in grpc.StatusCode if code.value[0] == wanted.code)
        await context.abort(code, wanted.message, context.trailing_metadata() or ())


def payload(size: int):
    return pb.Payload(body=bytes(size))


class TestService(services.TestServiceServicer):
    async def EmptyCall(self, request, context):
        return pb.Empty()

    async def UnaryCall(self, request, context):
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        await echo(context)
        await end(request, context)
        return pb.SimpleResponse(payload=payload(request.response_size))

    async def StreamingOutputCall(self, request, context):
        if any(wanted.compressed.value for wanted in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        for wanted in request.response_parameters:
            await asyncio.sleep(wanted.interval_us / 1e6)
            yield pb.StreamingOutputCallResponse(payload=payload(wanted.size))

    async def StreamingInputCall(self, requests, context):
        size = 0
        async for request in requests:
            size += len(request.payload.body)
        return pb.StreamingInputCallResponse(aggregated_payload_size=size)

    async def FullDuplexCall(self, requests, context):
        await echo(context)
        async for request in requests:
            await end(request, context)
            for wanted in request.response_parameters:
                await asyncio.sleep(wanted.interval_us / 1e6)
                yield pb.StreamingOutputCallResponse(payload=payload(wanted.size))


async def main() -> None:
    server = grpc.aio.server()
    services.add_TestServiceServicer_to_server(TestService(), server)
    health = HealthServicer()
    await health.set(NAME, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection((NAME, reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
