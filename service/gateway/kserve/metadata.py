"""What can be asked about the server and its models, as plain structures that both forms of the protocol write.

Names and meanings are Triton's. A model's configuration follows from its metadata: every model takes up to `images`
files at a time, so that `max_batch_size` is not 0 and each tensor's first axis, which the configuration leaves out, is
the images of a request.
"""

from __future__ import annotations

from typing import Any

from service.core.levels import AUTO
from service.dispatcher.catalogue import Entry
from service.dispatcher.statistics import Duration, ModelCounts, Statistics
from service.errors import Refusal
from service.gateway.kserve import outputs
from service.gateway.kserve.tensors import BYTES, INPUT
from service.gateway.serving import Gateway
from service.version import VERSION

NAME = "squint"
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "schedule_policy",
)
PRIORITIES = {1: "high", 2: "normal", 3: "low"}
"""Triton's numbers, 1 first; 0 is the default."""
_STRING = "TYPE_STRING"


def server() -> dict[str, Any]:
    """The server."""
    return {"name": NAME, "version": VERSION, "extensions": list(EXTENSIONS)}


def specs(entry: Entry) -> list[outputs.Spec]:
    """The outputs that a model offers."""
    return outputs.offered(entry.manifest.task, entry.loaded.outputs if entry.loaded else ())


def model(gateway: Gateway, entry: Entry) -> dict[str, Any]:
    """A model: its versions and tensors."""
    manifest = entry.manifest
    return {
        "name": manifest.name,
        "versions": sorted(gateway.catalogue.models[manifest.name].versions, key=int),
        "platform": platform(entry),
        "inputs": [{"name": INPUT, "datatype": BYTES, "shape": [-1]}],
        "outputs": [{"name": spec.name, "datatype": spec.datatype, "shape": [-1, *spec.dims]} for spec in specs(entry)],
    }


def ready(gateway: Gateway, entry: Entry) -> bool:
    """A request for this model would be answered now."""
    return gateway.engine.ready() and not gateway.leaving() and entry.loaded is not None and not entry.resting


def platform(entry: Entry) -> str:
    """What runs it, such as `squint_openvino`."""
    backend = entry.backend
    return f"{NAME}_{backend}" if backend else NAME


def config(gateway: Gateway, entry: Entry) -> dict[str, Any]:
    """A model's configuration, with the field names of Triton's ModelConfig."""
    settings, limits, manifest = gateway.config, gateway.config.limits, entry.manifest
    levels = [*(level.spelled for level in entry.offered), AUTO]
    return {
        "name": manifest.name,
        "platform": platform(entry),
        "backend": entry.backend,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": limits.images,
        "input": [{"name": INPUT, "data_type": _STRING, "format": "FORMAT_NONE", "dims": [], "optional": False}],
        "output": [
            {"name": spec.name, "data_type": _data_type(spec.datatype), "dims": list(spec.dims)}
            for spec in specs(entry)
        ],
        "instance_group": [
            {"name": manifest.name, "kind": "KIND_AUTO", "count": settings.workers * settings.threads, "gpus": []}
        ],
        "dynamic_batching": {
            "preferred_batch_size": [],
            "max_queue_delay_microseconds": 0,
            "preserve_ordering": False,
            "priority_levels": len(PRIORITIES),
            "default_priority_level": 2,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": limits.default_timeout_ms * 1000,
                "allow_timeout_override": True,
                "max_queue_size": limits.in_flight,
            },
        },
        "model_transaction_policy": {"decoupled": False},
        "parameters": {
            name: {"string_value": value}
            for name, value in (
                ("task", manifest.task),
                ("levels", ",".join(levels)),
                ("default_level", entry.default_level),
                ("licence", manifest.licence),
            )
        },
    }


def _data_type(datatype: str) -> str:
    return _STRING if datatype == BYTES else f"TYPE_{datatype}"


def asked(gateway: Gateway, name: str, version: str) -> list[Entry]:
    """The versions that statistics are wanted of: all where no version is named, of all models where none is. Raises
    Refusal."""
    if not name:
        return gateway.catalogue.all_entries()
    served = gateway.catalogue.models.get(name)
    if served is None:
        raise Refusal("unknown_model", "no model of that name; see /v2/models")
    return [served.take(version)] if version else list(served.versions.values())


def statistics(counted: Statistics, entry: Entry) -> dict[str, Any]:
    """What a model has done since who counts started."""
    manifest = entry.manifest
    counts = counted.of(manifest.name, manifest.version)
    return {
        "name": manifest.name,
        "version": manifest.version,
        "last_inference": counts.last_ms,
        "inference_count": counts.inferences,
        "execution_count": counts.executions,
        "inference_stats": _of_requests(counts),
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(stages.decode),
                "compute_infer": _duration(stages.infer),
                "compute_output": _duration(stages.post),
            }
            for size, stages in sorted(counts.batches.items())
        ],
        "memory_usage": [],
        "response_stats": {},
    }


def _of_requests(counts: ModelCounts) -> dict[str, Any]:
    return {
        "success": _duration(counts.success),
        "fail": _duration(counts.fail),
        "queue": _duration(counts.queue),
        "compute_input": _duration(counts.decode),
        "compute_infer": _duration(counts.infer),
        "compute_output": _duration(counts.post),
        "cache_hit": _duration(Duration()),
        "cache_miss": _duration(Duration()),
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
