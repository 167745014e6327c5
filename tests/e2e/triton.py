"""tritonclient's four clients, unmodified, behind one way of calling them, which counts the calls."""

from __future__ import annotations

import asyncio
import gc
import io
import warnings
from collections import Counter
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.e2e.service import Service

KINDS = ("http", "http.aio", "grpc", "grpc.aio")
INPUT = "images"
CALLS: Counter[str] = Counter()
"""Calls that any client here has made, by method."""

_CLIENTS: dict[str, Any] = {
    "http": tritonclient.http.InferenceServerClient,
    "http.aio": tritonclient.http.aio.InferenceServerClient,
    "grpc": tritonclient.grpc.InferenceServerClient,
    "grpc.aio": tritonclient.grpc.aio.InferenceServerClient,
}


class Client:
    """One kind of client, with a connection of its own for each call."""

    def __init__(self, kind: str, service: Service) -> None:
        self.kind = kind
        self.rpc = kind.startswith("grpc")
        self.url = f"127.0.0.1:{service.grpc_port if self.rpc else service.port}"
        self._module: Any = tritonclient.grpc if self.rpc else tritonclient.http

    def __call__(self, method: str, *args: Any, **named: Any) -> Any:
        """Call a method and wait for what it answers."""
        CALLS[method] += 1
        if self.kind == "http.aio":
            # It does not read the bodies of answers about health, and so leaves their connections to the collector.
            with warnings.catch_warnings(action="ignore", category=ResourceWarning):
                found = asyncio.run(self._later(method, *args, **named))
                gc.collect()
            return found
        if self.kind == "grpc.aio":
            return asyncio.run(self._later(method, *args, **named))
        client = self.make()
        try:
            return getattr(client, method)(*args, **named)
        finally:
            client.close()

    def make(self) -> Any:
        """A client as the library has it."""
        return _CLIENTS[self.kind](self.url)

    async def _later(self, method: str, *args: Any, **named: Any) -> Any:
        client = self.make()
        try:
            return await getattr(client, method)(*args, **named)
        finally:
            await client.close()

    def ask(self, method: str, *args: Any) -> Any:
        """Call a method that answers with a structure; over gRPC in its JSON form."""
        return self(method, *args, as_json=True) if self.rpc else self(method, *args)

    def input(self, values: NDArray[Any], datatype: str, name: str = INPUT, **how: Any) -> Any:
        """An input tensor; `how` is for HTTP alone."""
        tensor = self._module.InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, **({} if self.rpc else how))
        return tensor

    def files(self, *files: bytes) -> Any:
        """Files as the input tensor."""
        return self.input(np.array(files, dtype=np.object_), "BYTES")

    def output(self, name: str, classes: int = 0, binary: bool = True) -> Any:
        """An output that is asked for; `binary` is for HTTP alone."""
        how = {} if self.rpc else {"binary_data": binary}
        return self._module.InferRequestedOutput(name, class_count=classes, **how)

    def infer(self, model: str, tensor: Any, **named: Any) -> Any:
        """One inference."""
        return self("infer", model, [tensor], **named)

    def level(self, result: Any) -> str:
        """The level that an answer says was served."""
        response = result.get_response()
        return str(response.parameters["level"].string_param if self.rpc else response["parameters"]["level"])


def refusal(call: Any, *args: Any, **named: Any) -> InferenceServerException:
    """The error that a call is answered with."""
    try:
        call(*args, **named)
    except InferenceServerException as error:
        return error
    raise AssertionError("it was answered")


def solid(colour: tuple[int, int, int], side: int = 32) -> NDArray[np.uint8]:
    """An image [side, side, 3] of one colour."""
    return np.full((side, side, 3), colour, np.uint8)


def decoded(file: bytes) -> NDArray[np.uint8]:
    """A file's pixels as they are stored."""
    return np.asarray(Image.open(io.BytesIO(file)))
