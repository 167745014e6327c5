"""The OpenAPI document as a program reads it: everything described, bounded and named; examples that hold; and what the
service really answers is what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from service.errors import STATUS
from tests.e2e import images
from tests.e2e.service import Service

TASKS = ("classify", "detect", "segment")
JSON = "application/json"
PUBLIC = ("/livez", "/startupz", "/readyz")


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.request("GET", "/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def schemas(node: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in the document, with its place."""
    if isinstance(node, list):
        for position, value in enumerate(node):
            yield from schemas(value, f"{where}/{position}")
    elif isinstance(node, dict):
        if isinstance(node.get("type"), str) and "/securitySchemes/" not in where:
            yield where, node
        for key, value in node.items():
            if key not in ("example", "examples", "default", "const", "enum"):
                yield from schemas(value, f"{where}/{key}")


def described(document: dict[str, Any], schema: dict[str, Any]) -> bool:
    name = schema.get("$ref", "").rpartition("/")[2]
    behind = document["components"]["schemas"][name] if name else {}
    return bool(schema.get("description", "").strip() or behind.get("description", "").strip())


LEAST = {"string": {"maxLength"}, "integer": {"minimum", "maximum"}, "array": {"maxItems", "items"}}


def unbounded(schema: dict[str, Any]) -> bool:
    kind = schema["type"]
    if {"enum", "const"} & set(schema):
        return False
    if kind == "number":
        return not ({"minimum", "exclusiveMinimum"} & set(schema) and {"maximum", "exclusiveMaximum"} & set(schema))
    return not LEAST.get(kind, set()) <= set(schema)


def test_everything_is_bounded(document: dict[str, Any]) -> None:
    found = list(schemas(document))
    assert len(found) > 100
    assert [where for where, schema in found if unbounded(schema)] == []


def test_everything_is_described(document: dict[str, Any]) -> None:
    missing = [
        f"{where}/{name}"
        for where, schema in schemas(document)
        for name, part in schema.get("properties", {}).items()
        if not described(document, part)
    ]
    missing += [name for name, part in document["components"]["schemas"].items() if not described(document, part)]
    for path, method, operation in operations(document):
        place = f"{method} {path}"
        missing += [place] if not (operation.get("summary") and operation.get("description")) else []
        missing += [f"{place} {given['name']}" for given in operation.get("parameters", []) if not given["description"]]
        for status, response in operation["responses"].items():
            missing += [f"{place} {status}"] if response["description"] in ("", "Successful Response") else []
            missing += [
                f"{place} {name}" for name, head in response.get("headers", {}).items() if not head["description"]
            ]
    assert missing == []


def test_leaves_have_examples_and_every_example_holds(document: dict[str, Any]) -> None:
    components = document["components"]
    checked = 0
    for where, schema in schemas(document):
        for example in schema.get("examples", []):
            jsonschema.validate(example, {**schema, "components": components})
            checked += 1
        for name, part in schema.get("properties", {}).items():
            leaves = {one.get("type") for one in (part, *part.get("anyOf", []))} & {"string", "integer", "number"}
            assert not leaves or "examples" in part or part.get("format") == "binary", f"{where}/{name}"
    for path, _, operation in operations(document):
        for status, response in operation["responses"].items():
            for kind, content in response.get("content", {}).items():
                for name, example in content.get("examples", {}).items():
                    jsonschema.validate(example["value"], {**content["schema"], "components": components})
                    assert kind == JSON and (name in STATUS or name == example["value"]["status"]), (path, status)
                    checked += 1
    assert checked > 100


def test_operations_have_names_tags_and_keys(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names) and all(name.isidentifier() for name in names)
    assert set(names) >= {*TASKS, "list_models", "show_model", "livez", "startupz", "readyz", "metrics", "root"}
    tags = {tag["name"] for tag in document["tags"]}
    assert set(document["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    for path, _, operation in operations(document):
        assert operation["tags"] and set(operation["tags"]) <= tags, path
        public = path in PUBLIC
        assert operation["security"] == ([] if public else [{"bearer": []}, {"apiKey": []}, {}]), path


def test_no_error_is_left_out(document: dict[str, Any]) -> None:
    # Paths and methods that there are not have no place here; nobody reads the answer when the client has gone.
    elsewhere = {"not_found", "method_not_allowed", "client_closed_request", "forbidden"}
    for task in TASKS:
        told = {
            code
            for status, response in document["paths"][f"/{task}"]["post"]["responses"].items()
            if status != "200"
            for code in response["content"][JSON]["examples"]
        }
        assert told <= set(STATUS) and not {code for code in set(STATUS) - told - elsewhere if STATUS[code] < 403}
        responses = document["paths"][f"/{task}"]["post"]["responses"]
        assert {"429", "503"} == {
            status for status, one in responses.items() if "Retry-After" in one.get("headers", {})
        }
        assert all("X-Request-Id" in one["headers"] for one in responses.values())
    assert "ValidationError" not in json.dumps(document)


def schema_of(document: dict[str, Any], path: str, method: str, status: int) -> dict[str, Any]:
    content = document["paths"][path][method]["responses"][str(status)]["content"][JSON]["schema"]
    return {**content, "components": document["components"]}


ASKED = [(task, query) for task in TASKS for query in ("", "?explain=all", "?explain=batch&priority=low")]
ASKED += [
    ("classify", "?top_k=1000"),
    ("detect", "?threshold=0"),
    ("segment", "?mask=png"),
    ("segment", "?mask=polygons"),
]


@pytest.mark.parametrize(("task", "query"), ASKED)
def test_answers_are_as_described(service: Service, document: dict[str, Any], task: str, query: str) -> None:
    reply = service.request("POST", f"/{task}{query}", images.png(images.number(5), 64, 48))
    assert reply.status == 200, reply.body
    jsonschema.validate(reply.json(), schema_of(document, f"/{task}", "post", 200))
    assert set(reply.json()) <= set(properties(document, task)), "no field is undocumented"
    heads = document["paths"][f"/{task}"]["post"]["responses"]["200"]["headers"]
    assert all(name.lower() in reply.headers for name in heads)
    if "explain=all" in query:
        assert {"tokens", "batch"} == set(reply.json()["explain"])


def properties(document: dict[str, Any], task: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][f"{task.capitalize()}Answer"]["properties"]
    return found


def test_a_list_of_answers_is_as_described(service: Service, document: dict[str, Any]) -> None:
    parts = [images.png(images.number(5)), b"no image"]
    body = b"".join(b'--cut\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + part + b"\r\n" for part in parts)
    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    reply = service.request("POST", "/classify", body + b"--cut--\r\n", headers)
    assert [type(reply.json()), len(reply.json())] == [list, 2]
    jsonschema.validate(reply.json(), schema_of(document, "/classify", "post", 200))


def test_errors_are_as_described(service: Service, document: dict[str, Any]) -> None:
    for target, body, status in (
        ("/classify", b"no image", 415),
        ("/classify?top_k=0", b"", 400),
        ("/detect?model=none", b"", 404),
        ("/segment", images.png((1, 2, 3))[:60], 422),
    ):
        reply = service.request("POST", target, body)
        assert reply.status == status, reply.body
        path = target.partition("?")[0]
        jsonschema.validate(reply.json(), schema_of(document, path, "post", status))
        examples = document["paths"][path]["post"]["responses"][str(status)]["content"][JSON]["examples"]
        assert reply.json()["code"] in examples


def test_models_and_health_are_as_described(service: Service, document: dict[str, Any]) -> None:
    listed = service.request("GET", "/v1/models").json()
    jsonschema.validate(listed, schema_of(document, "/v1/models", "get", 200))
    for model in listed["models"]:
        one = service.request("GET", f"/v1/models/{model['name']}").json()
        jsonschema.validate(one, schema_of(document, "/v1/models/{name}", "get", 200))
        assert set(one) <= set(document["components"]["schemas"]["ModelDescription"]["properties"])
    missing = service.request("GET", "/v1/models/none")
    jsonschema.validate(missing.json(), schema_of(document, "/v1/models/{name}", "get", 404))
    for path in PUBLIC:
        jsonschema.validate(service.request("GET", path).json(), schema_of(document, path, "get", 200))
    root = service.request("GET", "/").json()
    jsonschema.validate(root, schema_of(document, "/", "get", 200))
    assert set(root) <= set(document["paths"]["/"]["get"]["responses"]["200"]["content"][JSON]["schema"]["properties"])
