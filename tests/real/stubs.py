"""The messages and gRPC stubs of proto files, generated into out/ when they are missing or old."""

import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
PROBE = HERE / "proto" / "probe.proto"
TUNNEL = HERE.parent.parent / "proto" / "strait" / "v1" / "tunnel.proto"
TARGET = HERE / "out" / "stubs"


def generate(source: pathlib.Path) -> None:
    """Compiles a proto file with grpcio-tools."""
    made = TARGET / f"{source.stem}_pb2_grpc.py"
    if made.exists() and made.stat().st_mtime > source.stat().st_mtime:
        return
    from grpc_tools import protoc

    TARGET.mkdir(parents=True, exist_ok=True)
    code = protoc.main(
        ["protoc", f"-I{source.parent}", f"--python_out={TARGET}", f"--grpc_python_out={TARGET}", str(source)]
    )
    if code:
        raise RuntimeError(f"protoc ended with {code}")


def load(source: pathlib.Path = PROBE):
    """The modules (messages, services) of a proto file."""
    generate(source)
    if str(TARGET) not in sys.path:
        sys.path.insert(0, str(TARGET))
    return importlib.import_module(f"{source.stem}_pb2"), importlib.import_module(f"{source.stem}_pb2_grpc")
