"""The admin API keeps to its own description: schemathesis tries it on the live site."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import schemathesis
from adminbench import TOKEN, AdminBench
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "10"))
"""Of each operation."""

SEMANTIC = ("runCommand", "switchBreaker", "purgeCache", "listProjects", "listTokens")
"""Operations that refuse some of what is well-formed: a command that is none, a cursor that is gone."""

ANONYMOUS = ("ignored_auth",)
"""Checks that change the caller's credentials."""


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[AdminBench]:
    made = pytest_twisted.blockon(ensureDeferred(AdminBench(tmp_path).listen()))
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


def document(admin: AdminBench) -> dict[str, Any]:
    found: dict[str, Any] = admin.site.resource.document()
    # Links between operations are not told; the names that are there make the paths hit.
    for path, operations in found["paths"].items():
        names = ["ci"] if "{token}" in path else ["p"] if "{project}" in path else ["openai"]
        for operation in operations.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    parameter["schema"] = {"anyOf": [{"enum": names}, parameter["schema"]]}
    return found


def run(admin: AdminBench) -> Counter[tuple[str, int]]:
    """Try every operation; how often each came to which status."""
    schema = schemathesis.openapi.from_dict(document(admin))
    schema.config.update(base_url=f"http://127.0.0.1:{admin.port}/admin/v1")
    seen: Counter[tuple[str, int]] = Counter()
    for result in schema.get_all_operations():
        attempt(result.ok(), seen)
    return seen


def attempt(operation: Any, seen: Counter[tuple[str, int]]) -> None:
    name = operation.definition.raw["operationId"]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    checks = [check for check in CHECKS.get_all() if check.__name__ not in ANONYMOUS]
    if name in SEMANTIC:
        checks = [check for check in checks if check.__name__ != "positive_data_acceptance"]

    def one(case: Any) -> None:
        response = case.call(headers=headers, timeout=20)
        seen[name, response.status_code] += 1
        case.validate_response(response, checks=checks, headers=headers)

    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]
    bounds = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    bounds(given(st.one_of(*modes))(one))()


@pytest_twisted.ensureDeferred
async def test_live_site_conforms_to_its_description(admin: AdminBench) -> None:
    await admin.ask("POST", "/projects", {"name": "p", "credentials": {"openai": "k"}})
    await admin.ask("POST", "/tokens", {"project": "p", "name": "ci"})
    seen = await deferToThread(run, admin)
    operations = {name for name, _ in seen}
    assert len(operations) == 25
    statuses = {status for _, status in seen}
    assert {200, 201, 400, 404} <= statuses
    assert not statuses & {500, 503}
