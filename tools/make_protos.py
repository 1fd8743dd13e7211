"""Generates sparknet_dsl/proto/*_pb2.py and *_pb2.pyi from the .proto files beside them.

Usage: python tools/make_protos.py [OUT_DIR]     (needs grpcio-tools: pip install -e '.[dev]')
"""

import pathlib
import sys

import grpc_tools
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parent.parent / "sparknet_dsl" / "proto"


def main(out: pathlib.Path) -> None:
    """Writes the generated modules into `out`; exits with protoc's status when a .proto file is wrong."""
    out.mkdir(parents=True, exist_ok=True)
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    sources = [str(path) for path in sorted(PROTO.glob("*.proto"))]
    status = protoc.main(["protoc", f"-I{PROTO}", f"-I{include}", f"--python_out={out}", f"--pyi_out={out}", *sources])
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO)
