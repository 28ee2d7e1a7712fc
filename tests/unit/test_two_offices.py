"""Two daemons on one store change the same thing at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from llmproxyd.control.calls import Caller
from llmproxyd.control.projects import Projects
from llmproxyd.errors import Refused
from llmproxyd.model import Change
from llmproxyd.testing.store import MemoryStore

ME = Caller("test")


class Offices:
    """The verbs of two hosts: what the other one does in between is done while the first goes on record."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.meanwhile: Callable[[], object] | None = None
        self.audited: list[tuple[str, str]] = []
        self.here, self.there = self._office(self._interrupted), self._office(self._at_once)
        self.project: str = done(self.here.create(ME, {"name": "a"}))["id"]
        made = done(self.here.tokens.create(ME, {"project": "a", "name": "t"}))
        self.token: str = made["id"]

    def _office(self, audit: Callable[[Change], Deferred[None]]) -> Projects:
        return Projects(
            self.store,
            door_changed=lambda projects, tokens: None,
            audit=audit,
            wall=lambda: 1000.0,
            random_bytes=lambda count: len(self.audited).to_bytes(count, "big"),
            upstreams={"openai": None},
        )

    def _at_once(self, change: Change) -> Deferred[None]:
        self.audited.append((change.action, change.outcome))
        return succeed(None)

    def _interrupted(self, change: Change) -> Deferred[None]:
        self.audited.append((change.action, change.outcome))
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return succeed(None)


def done(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    (value,) = found
    return value if not hasattr(value, "raiseException") else value.raiseException()


@pytest.fixture
def offices() -> Offices:
    return Offices()


def test_a_revocation_is_not_undone_by_a_change_on_another_host(offices: Offices) -> None:
    offices.meanwhile = lambda: done(offices.there.tokens.revoke(ME, offices.token))
    done(offices.here.tokens.update(ME, offices.token, {"max_requests": 7}))
    shown = done(offices.here.tokens.show(offices.token))
    assert (shown["active"], shown["max_requests"]) == (False, 7)


def test_a_revocation_insists(offices: Offices) -> None:
    offices.meanwhile = lambda: done(offices.there.tokens.update(ME, offices.token, {"max_requests": 7}))
    done(offices.here.tokens.revoke(ME, offices.token))
    shown = done(offices.here.tokens.show(offices.token))
    assert (shown["active"], shown["max_requests"]) == (False, 7)


@pytest.mark.parametrize("grace", [{}, {"grace": "60s"}])
def test_a_rotation_keeps_what_another_host_has_set(offices: Offices, grace: dict[str, object]) -> None:
    offices.meanwhile = lambda: done(offices.there.tokens.update(ME, offices.token, {"scopes": ["fault"]}))
    done(offices.here.tokens.rotate(ME, offices.token, grace))
    assert done(offices.here.tokens.show(offices.token))["scopes"] == ["fault"]
    assert len(done(offices.here.tokens.list())["tokens"]) == 1 + bool(grace)


def test_a_project_is_not_activated_by_a_change_on_another_host(offices: Offices) -> None:
    offices.meanwhile = lambda: done(offices.there.deactivate(ME, "a"))
    done(offices.here.update(ME, "a", {"credentials": {"openai": "sk-x"}}))
    shown = done(offices.here.show("a"))
    assert (shown["active"], shown["credentials"]) == (False, {"openai": "[set]"})


def test_two_hosts_can_give_credentials_at_the_same_time(offices: Offices) -> None:
    offices.meanwhile = lambda: done(offices.there.update(ME, "a", {"limits": {"rpm": 5}}))
    done(offices.here.update(ME, "a", {"limits": {"tpm": 6}}))
    assert done(offices.here.show("a"))["limits"] == {"rpm": 5, "tpm": 6}


def test_what_was_outdated_is_on_record(offices: Offices) -> None:
    offices.audited.clear()
    offices.meanwhile = lambda: done(offices.there.deactivate(ME, "a"))
    done(offices.here.update(ME, "a", {"name": "b"}))
    assert offices.audited == [
        ("project.update", "ok"),
        ("project.deactivate", "ok"),
        ("project.update", "refused"),
        ("project.update", "ok"),
    ]


def test_whoever_never_gets_a_turn_is_told_to_try_again(offices: Offices) -> None:
    names = iter(range(100))

    def interfere() -> None:
        done(offices.there.update(ME, offices.project, {"name": f"n{next(names)}"}))
        offices.meanwhile = interfere

    offices.meanwhile = interfere
    with pytest.raises(Refused) as caught:
        done(offices.here.deactivate(ME, offices.project))
    assert (caught.value.status, caught.value.code) == (409, "outdated")
