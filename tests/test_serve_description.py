"""The service's description: every operation answers as it says, whatever it is asked (schemathesis). Device: CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from gnr_video.serve.api import Api
from gnr_video.serve.description import OPERATIONS, Operation, document
from gnr_video.serve.run import Serving
from gnr_video.serve.schema import Malformed, check
from tests.serve_helpers import QUICK, Client, service

pytestmark = pytest.mark.usefixtures("face_model")


@pytest.fixture(scope="module")
def running(tiny: Path, face_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("service")
    with service(tiny, folder / "jobs", allow=(folder,), queue=100_000) as made:
        yield made


@pytest.fixture(scope="module")
def done(running: Serving, face_clip: Path) -> str:
    """The id of a job that has a result."""
    client = Client(running.urls[0], running.token)
    id = str(client.upload(face_clip, **QUICK).json["id"])
    assert client.ended(id)["state"] == "done"
    return id


@pytest.fixture(scope="module")
def described(running: Serving) -> Any:
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis (extra dev)")
    client = Client(running.urls[0], running.token)
    return schemathesis.openapi.from_dict(client.ask("GET", "/openapi.json").json)


def ask(running: Serving, cases: Any, count: int, id: str = "") -> None:
    """Send requests that schemathesis thinks of, and check the answers."""
    from schemathesis.checks import load_all_checks
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    load_all_checks()

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def send(case: Any) -> None:
        if id and case.path_parameters:
            case.path_parameters["id"] = id
        case.call_and_validate(
            base_url=running.urls[0].rstrip("/"),
            headers={"Authorization": f"Bearer {running.token}"},
            # What has the declared form may mean nothing all the same, such as a style: 422.
            excluded_checks=[positive_data_acceptance],
        )

    send()


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_answers_are_as_described(running: Serving, described: Any, done: str, operation: Operation) -> None:
    from schemathesis import GenerationMode

    asked = described[operation.path][operation.method]
    count = 6 if operation.body else 2
    ask(running, asked.as_strategy(generation_mode=GenerationMode.POSITIVE), count, done)
    if operation.parameters or operation.body:
        ask(running, asked.as_strategy(generation_mode=GenerationMode.NEGATIVE), 8)


def test_every_operation_is_answered() -> None:
    assert all(callable(getattr(Api, one.name)) for one in OPERATIONS)
    text = json.dumps(document())
    assert json.loads(text) == document() and '"openapi": "3.1.0"' in text


def test_a_schema_that_is_not_understood_is_no_licence() -> None:
    with pytest.raises(ValueError, match="oneOf"):
        check(1, {"oneOf": []})
    with pytest.raises(Malformed, match=r"list\[1\] must be integer, not \"x\""):
        check([1, "x"], {"type": "array", "items": {"type": "integer"}}, "list")
