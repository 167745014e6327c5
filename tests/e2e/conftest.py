"""A service as it comes, on the fake backend, for every file that asks for nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.service import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running
