"""What a token is good for, and what an administrator may enter."""

from __future__ import annotations

import pytest

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import (
    Limits,
    Project,
    Token,
    check,
    project_problems,
    valid_limit,
    valid_name,
)
from llmproxyd.errors import Refused
from llmproxyd.redaction import Secret

PROJECT = Project(id="proj_a", name="a")
NOW = 1000.0


def token(**changes: object) -> Token:
    return Token(id="tok_a", project="proj_a", digest=b"d", shown="sk-Ab3x…", **changes)  # type: ignore[arg-type]


def refusal(project: Project, token: Token, used: int = 0, enforce: bool = True) -> Refused | None:
    try:
        check(project, token, NOW, used=used, enforce_active=enforce)
    except Refused as error:
        return error
    return None


def test_good_token_of_an_active_project_passes() -> None:
    assert refusal(PROJECT, token(expires_at=NOW + 1, max_requests=1)) is None


@pytest.mark.parametrize(
    ("changes", "used", "status", "code"),
    [
        ({"active": False}, 0, 401, "token_inactive"),
        ({"expires_at": NOW}, 0, 401, "token_expired"),
        ({"expires_at": NOW - 1}, 0, 401, "token_expired"),
        ({"max_requests": 3}, 3, 429, "rate_limit_exceeded"),
        ({"max_requests": 3}, 4, 429, "rate_limit_exceeded"),
        ({"active": False, "expires_at": 1.0, "max_requests": 1}, 9, 401, "token_inactive"),
    ],
)
def test_bad_token_is_refused(changes: dict[str, object], used: int, status: int, code: str) -> None:
    error = refusal(PROJECT, token(**changes), used)
    assert error is not None
    assert (error.status, error.code) == (status, code)


def test_last_request_of_a_token_passes() -> None:
    assert refusal(PROJECT, token(max_requests=3), used=2) is None


def test_inactive_project_is_refused_unless_that_is_not_enforced() -> None:
    project = Project(id="proj_a", name="a", active=False)
    error = refusal(project, token())
    assert error is not None
    assert (error.status, error.code) == (403, "project_inactive")
    assert refusal(project, token(), enforce=False) is None


def test_refusals_say_what_to_send_and_when_to_come_back() -> None:
    inactive = refusal(PROJECT, token(active=False))
    used_up = refusal(PROJECT, token(max_requests=1), used=1)
    assert inactive is not None
    assert used_up is not None
    assert dict(inactive.headers)[b"www-authenticate"].startswith(b"Bearer")
    assert int(dict(used_up.headers)[b"retry-after"]) >= 3600


@pytest.mark.parametrize(("text", "name"), [("a", "a"), (" Team Ä ", "Team Ä"), ("x" * 100, "x" * 100)])
def test_name_is_taken_without_space_around_it(text: str, name: str) -> None:
    assert valid_name(text) == name


@pytest.mark.parametrize("text", ["", "  ", "x" * 101, "a\nb", "a\x00", "a\x1b[31m", "\u202eevil", "\ud800"])
def test_name_that_cannot_be_shown_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="accepted: a name"):
        valid_name(text)


@pytest.mark.parametrize("value", [None, 1, 60, 10**12])
def test_limit_is_a_whole_number_or_none(value: int | None) -> None:
    assert valid_limit(value) == value


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "5", 10**12 + 1, float("nan")])
def test_other_limits_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="accepted: a whole number"):
        valid_limit(value)


def test_problems_of_a_project_name_their_keys() -> None:
    project = Project(
        id="p",
        name=" a",
        credentials={"openai": Secret("sk-x\r\nx-evil: 1"), "local": Secret("")},
        allow=Allow(methods=("get",)),
        limits=Limits(rpm=0),
    )
    assert [key for key, _ in project_problems(project)] == [
        "name",
        "credentials.openai",
        "allow.methods",
        "limits.rpm",
    ]
    assert all("evil" not in text for _, text in project_problems(project))
    assert list(project_problems(PROJECT)) == []


def test_nothing_secret_stands_in_a_repr() -> None:
    project = Project(id="p", name="a", credentials={"openai": Secret("sk-real")})
    assert "sk-real" not in repr(project)
    assert "digest" not in repr(token())
