"""A gRPC backend made with grpcio.

usage: rpc.py PORT

What it noticed (calls cancelled by the visitor) is asked with what="seen".
"""

import asyncio
import hashlib
import json
import pathlib
import random
import sys
import time

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import stubs  # noqa: E402

pb, services = stubs.load()
BLOCK = random.Random(9).randbytes(1 << 20)
SEEN: dict[str, object] = {}


async def fail_richly(context):
    """A status with details, as google.rpc.Status has them."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="payload", description="too odd: é")]
    ))
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="not like this: ü % 100", details=[detail])
    await context.abort_with_status(rpc_status.to_status(status))


async def wait(question, context):
    """Waits; notes when the call is cancelled before."""
    note = question.payload.decode()
    SEEN[f"{note}:began"] = time.time()
    SEEN[f"{note}:remaining"] = context.time_remaining()
    try:
        await asyncio.sleep(question.milliseconds / 1000)
    except asyncio.CancelledError:
        SEEN[f"{note}:cancelled"] = time.time()
        raise


class Probe(services.ProbeServicer):
    async def Ask(self, question, context):
        match question.what:
            case "status":
                await fail_richly(context)
            case "wait":
                await wait(question, context)
            case "seen":
                return pb.Reply(text=json.dumps(SEEN))
            case "metadata":
                got = [[k, v.hex() if isinstance(v, bytes) else v] for k, v in context.invocation_metadata()]
                await context.send_initial_metadata((("x-first", "1"), ("x-raw-bin", bytes(range(256)))))
                context.set_trailing_metadata((("x-last", "2"), ("x-last", "3"), ("x-end-bin", b"\x00\xff")))
                return pb.Reply(text=json.dumps(got))
            case "size":
                return pb.Reply(payload=bytes(question.size))
        digest = hashlib.sha256(question.payload).hexdigest()
        return pb.Reply(number=question.count, payload=question.payload, length=len(question.payload), sha256=digest)

    async def Collect(self, questions, context):
        total, length, count = hashlib.sha256(), 0, 0
        async for question in questions:
            total.update(question.payload)
            length += len(question.payload)
            count += 1
        return pb.Reply(number=count, length=length, sha256=total.hexdigest())

    async def Expand(self, question, context):
        if question.what == "wait":
            yield pb.Reply(text="begun")
            await wait(question, context)
            return
        for number in range(question.count):
            yield pb.Reply(number=number, payload=BLOCK[: question.size])
            if question.milliseconds:
                await asyncio.sleep(question.milliseconds / 1000)
        if question.what == "fail":
            context.set_trailing_metadata((("x-last", "after messages"),))
            await context.abort(grpc.StatusCode.DATA_LOSS, "lost it")

    async def Chat(self, questions, context):
        expected = 0
        async for question in questions:
            if question.what == "wait":
                await wait(question, context)
            right = question.count == expected
            yield pb.Reply(number=question.count, payload=question.payload, text="ok" if right else "wrong order")
            expected += 1


async def main():
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", 64 << 20),
            ("grpc.max_concurrent_streams", 2000),
            ("grpc.so_reuseport", 0),
        ]
    )
    servicer = Probe()
    services.add_ProbeServicer_to_server(servicer, server)
    assert server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
