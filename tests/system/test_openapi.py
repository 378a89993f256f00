"""Weir answers as its own /openapi.json says: schemathesis makes requests of it, right ones and wrong ones.

No 500, no status and no content type that is not documented, the documented form of every answer, and what is
described as right is not called wrong.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.system.harness import Admin, Key, Upstream, Weir, configuration, model
from weir.core.operations import OPERATIONS


def schema_of_whole_answers(context: Any, response: Any, case: schemathesis.Case) -> bool | None:
    """An event stream is a text for us, and events for the check of schemathesis."""
    if response.headers["content-type"][0].startswith("text/event-stream"):
        return None
    return response_schema_conformance(context, response, case)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    positive_data_acceptance,  # not its opposite: what Weir does not decide on passes, whatever it is
    schema_of_whole_answers,
]
BOUNDED = settings(
    max_examples=50,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def weir(redis_url: str, upstream: Upstream) -> Iterator[Weir]:
    # Of a server that knows them all: what cannot be put into other words is no matter of this description.
    knows = [operation.name for operation in OPERATIONS]
    with Weir(configuration(redis_url, [model("chat", upstream.url, serves=knows)])) as weir:
        yield weir


@pytest.fixture(scope="module")
def key(admin: Admin) -> Key:
    return admin.key()


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Most of them ask for a model that there is, or few would come further than the look-up."""
    if isinstance(body, dict):
        if isinstance(name := body.get("model"), str):
            body["model"] = ("chat", "chat", name)[len(name) % 3]
        # 2.0 is an integer for JSON Schema, and not for us.
        return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in body.items()}
    return body


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_answers_as_documented(weir: Weir, key: Key, mode: GenerationMode) -> None:
    """Of every operation, with requests as it describes them and with others."""
    base = f"http://127.0.0.1:{weir.port}"
    operations = [found.ok() for found in schemathesis.openapi.from_url(f"{base}/openapi.json").get_all_operations()]
    assert len(operations) >= 5
    failures = []
    for operation in operations:

        @BOUNDED
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=base, headers=key.headers, checks=CHECKS, timeout=20)

        try:
            answers()
        except Unsatisfiable:
            continue  # no request of this operation can be wrong
        except (FailureGroup, Failure) as failure:
            failures.append(f"{operation.label}: {failure}")
    assert failures == [], "\n\n".join(failures)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer sk-unknown"}], ids=["no-key", "unknown-key"])
def test_says_which_operations_need_a_key(weir: Weir, headers: dict[str, str]) -> None:
    """Every documented path refuses without one, with a status that is documented there."""
    for path, operations in weir.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            answer = weir.http.request(method, path.replace("{model}", "chat"), headers=headers, json={"model": "chat"})
            assert answer.status_code == 401, path
            assert "401" in operation["responses"], f"{method} {path} does not tell of it"
