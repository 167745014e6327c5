"""Our messages of the KServe protocol are those of its public clients: the same names, types and numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Both describe the same names, which one process cannot hold twice: each is printed by a process of its own.
_DESCRIBE = """
import sys
from importlib import import_module
from google.protobuf import descriptor_pb2

def message(prefix, one):
    name = f"{prefix}.{one.name}"
    print("message", name)
    choices = [choice.name for choice in one.oneof_decl]
    for field in one.field:
        choice = choices[field.oneof_index] if field.HasField("oneof_index") else ""
        print("field", name, field.name, field.number, field.type, field.type_name, field.label, choice)
    for part in one.enum_type:
        enum(name, part)
    for part in one.nested_type:
        message(name, part)

def enum(prefix, one):
    for value in one.value:
        print("value", f"{prefix}.{one.name}", value.name, value.number)

for module in sys.argv[1:]:
    file = descriptor_pb2.FileDescriptorProto()
    import_module(module).DESCRIPTOR.CopyToProto(file)
    for one in file.message_type:
        message(file.package, one)
    for one in file.enum_type:
        enum(file.package, one)
    for service in file.service:
        for method in service.method:
            print("method", service.name, method.name, method.input_type, method.output_type,
                  method.client_streaming, method.server_streaming)
"""


def described(*modules: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-c", _DESCRIBE, *modules], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(told.stdout.splitlines())


def test_every_name_and_number_is_that_of_tritons_clients() -> None:
    ours = described("service.proto.inference.inference_pb2")
    theirs = described("tritonclient.grpc.model_config_pb2", "tritonclient.grpc.service_pb2")
    assert len(ours) > 150
    assert ours - theirs == set()


def test_what_a_client_sends_is_known_to_us() -> None:
    """Of an inference nothing is left out."""
    ours = described("service.proto.inference.inference_pb2")
    theirs = described("tritonclient.grpc.model_config_pb2", "tritonclient.grpc.service_pb2")
    of_inference = {line for line in theirs if " inference.ModelInfer" in line or " inference.Infer" in line}
    kept = {line for line in of_inference if "Statistics" not in line}
    assert len(kept) > 30
    assert kept - ours == set()
