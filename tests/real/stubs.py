"""The gRPC stubs of proto/probe.proto, generated into out/ when they are missing or old."""

import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE / "proto" / "probe.proto"
TARGET = HERE / "out" / "stubs"


def generate() -> None:
    """Compiles the proto file with grpcio-tools."""
    made = TARGET / "probe_pb2_grpc.py"
    if made.exists() and made.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    from grpc_tools import protoc

    TARGET.mkdir(parents=True, exist_ok=True)
    code = protoc.main(
        ["protoc", f"-I{SOURCE.parent}", f"--python_out={TARGET}", f"--grpc_python_out={TARGET}", str(SOURCE)]
    )
    if code:
        raise RuntimeError(f"protoc ended with {code}")


def load():
    """The modules (messages, services)."""
    generate()
    if str(TARGET) not in sys.path:
        sys.path.insert(0, str(TARGET))
    return importlib.import_module("probe_pb2"), importlib.import_module("probe_pb2_grpc")
