"""gRPC's interoperability tests (doc/interop-test-descriptions.md of its repository): each of
its implementations as a client of each other, through the tunnel in both directions."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from case import case
from cases.grpc_calls import OPTIONS
from process import HERE, Process, free_port, run, up
from strait import LOAD, Service

FOLDER = HERE / "interop"
CLIENTS = {
    "grpcio": (sys.executable, FOLDER / "client.py"),
    "grpc-js": ("node", FOLDER / "client.js"),
    "tonic": (LOAD, "interop-client"),
}
SERVERS = {
    "grpcio": (sys.executable, FOLDER / "server.py"),
    "grpc-js": ("node", FOLDER / "server.js"),
    "tonic": (LOAD, "interop-server"),
}
NAMES = {
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
    "cancel_after_begin", "cancel_after_first_response", "timeout_on_sleeping_server", "custom_metadata",
    "status_code_and_message", "special_status_message", "unimplemented_method", "unimplemented_service",
    "client_compressed_unary", "client_compressed_streaming", "server_compressed_unary", "server_compressed_streaming",
}
# The library cannot, or was built without.
CLIENT_COMPRESSED = {"client_compressed_unary", "client_compressed_streaming"}
SERVER_COMPRESSED = {"server_compressed_unary", "server_compressed_streaming"}
CLIENT_CANNOT = {"grpcio": set(), "grpc-js": set(), "tonic": CLIENT_COMPRESSED | SERVER_COMPRESSED}
SERVER_CANNOT = {"grpcio": set(), "grpc-js": SERVER_COMPRESSED, "tonic": CLIENT_COMPRESSED | SERVER_COMPRESSED}


async def served(t, server: str, name: str) -> str:
    """The address at which visitors reach a server of one implementation."""
    port = free_port()
    process = await Process.start(f"interop-{name}", *SERVERS[server], port)
    t.own.append(_Ends(process))
    await up(process, port)
    if t.mode == "direct":
        return f"127.0.0.1:{port}"
    return (await t.alone(f"interop-{name}-{t.mode}", services=[Service("grpc", port)])).grpc


class _Ends:
    def __init__(self, process: Process):
        self.stop, self.tail = process.stop, process.tail


def pairs(name: str):
    """Declares the case of each client with each server."""

    def declare(function):
        for client in CLIENTS:
            for server in SERVERS:
                words = {"client": client, "server": server}
                case(name.format(**words), seconds=60, **words)(function)
        return function

    return declare


@pairs("interop: {client} calls {server}")
async def interoperate(t, client, server):
    address = await served(t, server, f"{client}-{server}")
    ran = (await run(*CLIENTS[client], address, seconds=50)).ok()
    lines = ran.text.splitlines()
    passed = {line.removeprefix("ok ") for line in lines if line.startswith("ok ")}
    wanted = NAMES - CLIENT_CANNOT[client] - SERVER_CANNOT[server]
    wrong = [line for line in lines if line.startswith("FAIL") and line.split()[1].rstrip(":") in wanted]
    assert wanted <= passed and not wrong, "\n  ".join([f"differ or missing: {sorted(wanted - passed)}", *wrong])
    untried = ", ".join(sorted(NAMES - wanted))
    t.note(f"{len(wanted)} of {len(NAMES)} cases" + (f", not {untried}" if untried else ""))


@case("interop: health and reflection pass", seconds=30)
async def standard(t):
    address = await served(t, "grpcio", "standard")
    service = "grpc.testing.TestService"
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", service):
            got = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert got.status == health_pb2.HealthCheckResponse.SERVING, (name, got)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="absent"), timeout=5)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=5)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = {s.name for s in (await call.read()).list_services_response.service}
        assert service in listed, listed
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
        files = (await call.read()).file_descriptor_response.file_descriptor_proto
        assert any(b"FullDuplexCall" in file for file in files), "the service's description did not come"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
