"""The manifests for Kubernetes: built as `kubectl apply -k` would, valid, and in agreement with the service."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service import config, supervisor
from service.gateway import health
from service.metrics import Metrics, Now
from service.settings import SETTINGS
from service.version import VERSION
from squint import cli
from squint.commands import serve
from tests.deploy import custom
from tests.deploy.tools import kustomize
from tests.walls import ROOT

K8S = ROOT / "deploy" / "k8s"
OVERLAYS = ("cpu", "gpu", "keda")
RELEASES = ("1.29", "1.33", "1.37")
"""Releases of Kubernetes whose schemas everything must fit, strictly: no unknown field."""
Object = dict[str, Any]


def built(*parts: str) -> list[Object]:
    return kustomize(K8S.joinpath(*parts))


def with_component(folder: Path, name: str) -> list[Object]:
    """The overlay for CPUs and one component, as an operator would put them together."""
    lines = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(K8S / "overlays" / "cpu", folder.resolve())],
        "components": [os.path.relpath(K8S / "components" / name, folder.resolve())],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(lines))
    return kustomize(folder)


def only(objects: list[Object], kind: str) -> Object:
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


def container(objects: list[Object]) -> Object:
    (found,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def check(objects: list[Object]) -> None:
    for release in RELEASES:
        for one in objects:
            if one["kind"] in custom.SCHEMAS:
                custom.check(one)
            else:
                kubernetes_validate.validate(one, release, strict=True)


def seconds(probe: Object) -> int:
    return int(probe["periodSeconds"]) * int(probe["failureThreshold"])


# -- valid -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_valid(overlay: str) -> None:
    objects = built("overlays", overlay)
    assert {"Namespace", "ServiceAccount", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget"} < {
        one["kind"] for one in objects
    }
    check(objects)


@pytest.mark.parametrize("name", sorted(path.name for path in (K8S / "components").iterdir()))
def test_every_component_is_valid(tmp_path: Path, name: str) -> None:
    check(with_component(tmp_path, name))


def test_validation_sees_what_is_wrong() -> None:
    wrong = only(built("overlays", "cpu"), "Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check([wrong])


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        (("overlays", "keda"), lambda spec: spec.update(maxReplicas=10)),
        (("overlays", "keda"), lambda spec: spec["triggers"][0]["metadata"].update(threshold=0.1)),
        (("overlays", "keda"), lambda spec: spec["triggers"][0]["metadata"].update(adress="http://a.example")),
        (("overlays", "keda"), lambda spec: spec["triggers"][1].pop("metricType")),
        (("kserve",), lambda spec: spec["protocolVersions"].append("grpc")),
        (("kserve",), lambda spec: spec["supportedModelFormats"][0].update(autoselect=True)),
    ],
)
def test_definitions_of_others_see_what_is_wrong(where: tuple[str, ...], wrong: Callable[[Object], None]) -> None:
    (one,) = [one for one in built(*where) if one["kind"] in custom.SCHEMAS]
    custom.check(one)
    wrong(one["spec"])
    with pytest.raises(jsonschema.ValidationError):
        custom.check(one)


def test_every_file_is_part_of_something() -> None:
    told = "\n".join(path.read_text() for path in K8S.rglob("kustomization.yaml"))
    files = [path for path in K8S.rglob("*") if path.is_file() and path.name != "kustomization.yaml"]
    assert not [path.name for path in files if path.name not in told]


# -- in agreement with the service -------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_settings_are_settings_and_are_used(overlay: str) -> None:
    objects = built("overlays", overlay)
    settings = only(objects, "ConfigMap")
    assert set(settings["data"]) <= {setting.variable for setting in SETTINGS}
    loaded = config.load({}, settings["data"])
    assert container(objects)["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    assert ports == {"http": loaded.http_port, "grpc": loaded.grpc_port, "metrics": loaded.admin_port}
    assert loaded.admin_host == "0.0.0.0"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whoever_was_admitted_is_answered_before_the_pod_is_killed(overlay: str) -> None:
    objects = built("overlays", overlay)
    loaded = config.load({}, only(objects, "ConfigMap")["data"])
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    longest = loaded.drain_seconds + loaded.limits.max_timeout_ms / 1000
    longest += supervisor._DRAIN_SLACK + supervisor._LEAVE_SECONDS
    assert longest <= pod["terminationGracePeriodSeconds"]
    # As long as an endpoint needs to be taken out everywhere after the readiness probe has seen it.
    ready = container(objects)["readinessProbe"]
    assert loaded.drain_seconds > seconds(ready)


def probed(one: Object) -> None:
    paths = {route.path for route in health.router.routes if hasattr(route, "path")}
    for kind, path in (("startupProbe", "/startupz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        assert one[kind]["httpGet"]["path"] == path
        assert path in paths
    assert seconds(one["startupProbe"]) >= config.Config().load_seconds
    # A service that is merely busy is never restarted for it.
    assert seconds(one["livenessProbe"]) >= 60


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_the_service_answers(overlay: str) -> None:
    one = container(built("overlays", overlay))
    probed(one)
    assert {one[kind]["httpGet"]["port"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")} == {"metrics"}


def restricted(pod: Object) -> None:
    """What Kubernetes' profile `restricted` asks, and a read-only root besides."""
    shared = pod.get("securityContext", {})
    for one in pod["containers"]:
        context = shared | one["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] >= 10000
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert {"cpu", "memory"} <= set(one["resources"]["limits"])
        assert [mount["mountPath"] for mount in one["volumeMounts"]] == ["/var/cache/squint"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all("emptyDir" in volume for volume in pod["volumes"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_fit_the_strictest_profile(overlay: str) -> None:
    objects = built("overlays", overlay)
    restricted(only(objects, "Deployment")["spec"]["template"]["spec"])
    assert only(objects, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_selects_the_same_pods(overlay: str) -> None:
    objects = built("overlays", overlay)
    deployment = only(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert only(objects, "Service")["spec"]["selector"] == labels
    assert only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    named = {port["name"] for port in container(objects)["ports"]}
    assert {port["targetPort"] for port in only(objects, "Service")["spec"]["ports"]} == named
    rules = only(objects, "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == named
    assert {one["metadata"].get("namespace", "squint") for one in objects} == {"squint"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_image_is_this_version(overlay: str) -> None:
    suffix = "-gpu" if overlay == "gpu" else ""
    assert container(built("overlays", overlay))["image"] == f"squint:{VERSION}{suffix}"


def test_connections_out_are_denied_but_to_the_collector_that_is_named(tmp_path: Path) -> None:
    assert only(built("overlays", "cpu"), "NetworkPolicy")["spec"]["egress"] == []
    objects = with_component(tmp_path, "tracing")
    settings = only(objects, "ConfigMap")["data"]
    assert settings["SQUINT_DRAIN_SECONDS"]
    assert set(settings) <= {setting.variable for setting in SETTINGS}
    rules = only(objects, "NetworkPolicy")["spec"]["egress"]
    ports = {port["port"] for rule in rules for port in rule["ports"]}
    assert ports == {53, int(settings["SQUINT_OTLP_ENDPOINT"].rpartition(":")[2])}
    assert all(rule["to"] for rule in rules)


# -- scaling -----------------------------------------------------------------------------------------------------------


def exported() -> bytes:
    metrics = Metrics(VERSION)
    metrics.watch(lambda: Now(delays={"toyscape-classify": 0.0}))
    return metrics.render()


def test_the_autoscaler_has_the_count_and_a_metric_that_exists() -> None:
    objects = built("overlays", "cpu")
    assert "replicas" not in only(objects, "Deployment")["spec"]
    scaler = only(objects, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == only(objects, "Deployment")["metadata"]["name"]
    (pods,) = [metric["pods"]["metric"]["name"] for metric in scaler["metrics"] if metric["type"] == "Pods"]
    assert f"\n{pods}{{".encode() in exported()
    assert scaler["minReplicas"] > only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"]


def test_keda_asks_for_a_metric_that_exists() -> None:
    objects = built("overlays", "keda")
    assert "replicas" not in only(objects, "Deployment")["spec"]
    assert not [one for one in objects if one["kind"] == "HorizontalPodAutoscaler"]
    scaler = only(objects, "ScaledObject")["spec"]
    assert scaler["scaleTargetRef"]["name"] == only(objects, "Deployment")["metadata"]["name"]
    asked, by_cpu = scaler["triggers"]
    assert b"\nsquint_queue_delay_estimate_seconds{" in exported()
    assert "squint_queue_delay_estimate_seconds{" in asked["metadata"]["query"]
    assert by_cpu["type"] == "cpu"
    # KEDA takes texts here, and refuses numbers.
    assert all(isinstance(value, str) for trigger in scaler["triggers"] for value in trigger["metadata"].values())


def test_the_gpu_overlay_asks_for_a_gpu_and_goes_where_they_are() -> None:
    objects = built("overlays", "gpu")
    resources = container(objects)["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert [one["key"] for one in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert only(objects, "Deployment")["spec"]["replicas"] == 2


def test_the_service_monitor_scrapes_the_service(tmp_path: Path) -> None:
    objects = with_component(tmp_path, "service-monitor")
    monitor = only(objects, "ServiceMonitor")["spec"]
    service = only(objects, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {
        port["name"] for port in service["spec"]["ports"]
    }


# -- KServe ------------------------------------------------------------------------------------------------------------


def test_kserve_starts_the_service_with_flags_it_has() -> None:
    (runtime,) = built("kserve")
    custom.check(runtime)
    spec = runtime["spec"]
    (one,) = spec["containers"]
    assert one["name"] == "kserve-container"
    assert one["image"] == f"squint:{VERSION}"
    environment = {pair["name"]: pair["value"] for pair in one["env"]}
    loaded = config.load(serve.settings_of(_typed(one["args"])), environment)
    assert (loaded.http_port, loaded.grpc_port, loaded.models) == (8080, 9000, ("/mnt/models",))
    assert spec["annotations"]["prometheus.kserve.io/port"] == str(loaded.http_port)
    assert spec["protocolVersions"] == ["v2", "grpc-v2"]
    probed(one)
    restricted(spec)
    pod = {"containers": spec["containers"], "volumes": spec["volumes"]}
    check([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "squint"}, "spec": pod}])


def _typed(arguments: list[str]) -> Any:
    options = cli.parser().parse_args(arguments)
    del options.run, options.traceback
    return options


def test_the_example_names_a_format_that_the_runtime_has() -> None:
    example = yaml.safe_load((K8S / "kserve" / "inferenceservice.yaml").read_text())
    (runtime,) = built("kserve")
    asked = example["spec"]["predictor"]["model"]
    formats = [{key: one[key] for key in ("name", "version")} for one in runtime["spec"]["supportedModelFormats"]]
    assert asked["modelFormat"] in formats
    assert asked["protocolVersion"] in runtime["spec"]["protocolVersions"]
