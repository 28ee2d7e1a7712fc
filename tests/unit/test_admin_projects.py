"""The verbs about projects and tokens, on a store that takes its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from llmproxyd.control.calls import Caller
from llmproxyd.control.projects import Projects
from llmproxyd.errors import Refused
from llmproxyd.model import Change
from llmproxyd.testing.store import MemoryStore

ME = Caller("test")


class SlowStore(MemoryStore):
    """Each call takes a second."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def _do(self, name: str, work: Callable[[], Any]) -> Deferred[Any]:
        return deferLater(self._clock, 1.0, lambda: MemoryStore._do(self, name, work))


class Office:
    """The verbs with a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = SlowStore(self.clock)
        self.audited: list[Change] = []
        self.forgotten: list[tuple[str, ...]] = []
        self.audit_fails: BaseException | None = None
        self.numbers = iter(range(1000))
        self.projects = Projects(
            self.store,
            door_changed=lambda projects, tokens: self.forgotten.append((*projects, *tokens)),
            audit=self.audit,
            wall=lambda: 1000.0 + self.clock.seconds(),
            random_bytes=lambda count: next(self.numbers).to_bytes(count, "big"),
            upstreams={"openai": None},
        )

    def audit(self, change: Change) -> Deferred[None]:
        if self.audit_fails is not None:
            return fail(Failure(self.audit_fails))
        self.audited.append(change)
        return succeed(None)

    def done(self, deferred: Deferred[Any]) -> Any:
        """What came of *deferred*; an error as itself."""
        found: list[Any] = []
        deferred.addBoth(found.append)
        for _ in range(50):
            if found:
                break
            self.clock.advance(1.0)
        (result,) = found
        return result.value if isinstance(result, Failure) else result


def test_two_changes_at_once_are_both_made() -> None:
    office = Office()
    office.done(office.projects.create(ME, {"name": "p"}))
    first = office.projects.update(ME, "p", {"limits": {"rpm": 5}})
    second = office.projects.update(ME, "p", {"limits": {"tpm": 6}})
    office.done(first)
    assert office.done(second)["limits"] == {"rpm": 5, "tpm": 6}


def test_change_is_on_record_before_it_is_made() -> None:
    office = Office()
    making = office.projects.create(ME, {"name": "p"})
    assert [change.action for change in office.audited] == ["project.create"]
    assert office.forgotten == []
    made = office.done(making)
    assert office.forgotten == [(made["id"],)]


def test_door_forgets_what_may_have_changed_although_the_store_failed() -> None:
    office = Office()
    made = office.done(office.projects.create(ME, {"name": "p"}))
    changing = office.projects.update(ME, made["id"], {"active": False})
    office.clock.advance(1.0)
    office.store.down = True
    error = office.done(changing)
    assert isinstance(error, Refused)
    assert (error.status, error.code) == (503, "store_unavailable")
    assert office.forgotten[-1] == (made["id"],)
    assert [change.outcome for change in office.audited] == ["ok", "ok", "failed"]


def test_project_that_vanishes_meanwhile_is_told() -> None:
    office = Office()
    made = office.done(office.projects.create(ME, {"name": "p"}))
    changing = office.projects.update(ME, made["id"], {"active": False})
    office.clock.advance(1.0)
    MemoryStore._do(office.store, "x", lambda: office.store._projects.clear())
    error = office.done(changing)
    assert isinstance(error, Refused)
    assert error.status == 404


def test_any_failure_of_the_audit_log_refuses_the_change_and_frees_the_way_for_the_next() -> None:
    office = Office()
    for failure in (OSError("full"), ValueError("odd"), TimeoutError()):
        office.audit_fails = failure
        error = office.done(office.projects.create(ME, {"name": "p"}))
        assert isinstance(error, Refused)
        assert (error.status, error.code) == (503, "audit_unavailable")
        token = office.done(office.projects.tokens.create(ME, {"project": "p"}))
        assert token.status == 404
    office.audit_fails = None
    assert office.done(office.projects.create(ME, {"name": "p"}))["name"] == "p"
    assert office.store.calls["create_project"] == 1


def test_id_goes_before_name() -> None:
    office = Office()
    office.done(office.projects.create(ME, {"name": "one", "id": "other"}))
    office.done(office.projects.create(ME, {"name": "other", "id": "two"}))
    assert office.done(office.projects.show("other"))["name"] == "one"
    missing = office.done(office.projects.show("oen"))
    assert 'did you mean "one"?' in missing.message


def test_deleted_project_takes_its_tokens_along_and_the_door_forgets_them() -> None:
    office = Office()
    project = office.done(office.projects.create(ME, {"name": "p"}))
    token = office.done(office.projects.tokens.create(ME, {"project": "p"}))
    assert office.done(office.projects.delete(ME, "p")) == {"deleted": project["id"], "tokens": 1}
    assert office.forgotten[-1] == (project["id"], token["id"])
    assert office.done(office.projects.tokens.show(token["id"])).status == 404
