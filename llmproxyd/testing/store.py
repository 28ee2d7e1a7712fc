"""A store in memory, for tests: it does what the databases do, at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from twisted.internet.defer import Deferred, execute

from llmproxyd.access.projects import Project, Token
from llmproxyd.redaction import Secret
from llmproxyd.store import rows
from llmproxyd.store.interface import Changes, Conflict, Outdated, StoreUnavailable, UsageRow, Used
from llmproxyd.store.statements import KEPT, in_order

T = TypeVar("T")


class MemoryStore:
    """A :class:`~llmproxyd.store.interface.Store` that forgets everything at its end.

    :ivar down: set it, and every call fails with
        :exc:`~llmproxyd.store.interface.StoreUnavailable`.
    :ivar calls: how often each method was called.
    """

    def __init__(self) -> None:
        self.down = False
        self.calls: Counter[str] = Counter()
        self._projects: dict[str, Project] = {}
        self._tokens: dict[str, Token] = {}
        self._usage: dict[tuple[str, str, str, str], list[float]] = {}
        self._changes: list[tuple[int, str, str]] = []

    def _do(self, name: str, work: Callable[[], T]) -> Deferred[T]:
        self.calls[name] += 1

        def working() -> T:
            if self.down:
                raise StoreUnavailable("the store is down")
            return work()

        return execute(working)

    def open(self) -> Deferred[None]:
        return self._do("open", lambda: None)

    def close(self) -> Deferred[None]:
        self.calls["close"] += 1
        return execute(lambda: None)

    # Projects.

    def create_project(self, project: Project) -> Deferred[None]:
        def create() -> None:
            rows.project_row(project)
            if project.id in self._projects or self._named(project):
                raise Conflict("there is a project of this id or name already")
            self._projects[project.id] = project
            self._changed("project", project.id)

        return self._do("create_project", create)

    def project(self, id: str) -> Deferred[Project | None]:
        return self._do("project", lambda: self._projects.get(id))

    def projects(self) -> Deferred[list[Project]]:
        return self._do("projects", lambda: sorted(self._projects.values(), key=lambda one: one.name))

    def update_project(self, project: Project, was: Project | None = None) -> Deferred[bool]:
        def update() -> bool:
            rows.project_row(project)
            known = self._projects.get(project.id)
            if known is None:
                return False
            if was not in (None, known):
                raise Outdated("the project has just been changed by somebody else")
            if self._named(project):
                raise Conflict("there is another project of this name already")
            self._projects[project.id] = replace(project, created=known.created)
            self._changed("project", project.id)
            return True

        return self._do("update_project", update)

    def delete_project(self, id: str) -> Deferred[bool]:
        def delete() -> bool:
            if self._projects.pop(id, None) is None:
                return False
            self._tokens = {one.id: one for one in self._tokens.values() if one.project != id}
            self._changed("project", id)
            return True

        return self._do("delete_project", delete)

    def _named(self, project: Project) -> bool:
        """Whether another project has the name of *project*."""
        return any(one.name == project.name and one.id != project.id for one in self._projects.values())

    # Tokens.

    def create_token(self, token: Token) -> Deferred[None]:
        def create() -> None:
            rows.token_row(token)
            if token.project not in self._projects:
                raise Conflict("there is no project of this id")
            if token.id in self._tokens or self._digested(token):
                raise Conflict("there is such a token already")
            self._tokens[token.id] = token
            self._changed("token", token.id)

        return self._do("create_token", create)

    def token(self, id: str) -> Deferred[Token | None]:
        return self._do("token", lambda: self._tokens.get(id))

    def token_by_digest(self, digest: bytes) -> Deferred[Token | None]:
        return self._do(
            "token_by_digest",
            lambda: next((one for one in self._tokens.values() if one.digest == digest), None),
        )

    def tokens(self, project: str | None = None) -> Deferred[list[Token]]:
        return self._do(
            "tokens",
            lambda: sorted(
                (one for one in self._tokens.values() if project is None or one.project == project),
                key=lambda one: (-one.created, one.id),
            ),
        )

    def update_token(self, token: Token, was: Token | None = None) -> Deferred[bool]:
        def update() -> bool:
            rows.token_row(token)
            known = self._tokens.get(token.id)
            if known is None:
                return False
            if was is not None and not rows.same_but_counts(known, was):
                raise Outdated("the token has just been changed by somebody else")
            if self._digested(token):
                raise Conflict("there is such a token already")
            self._tokens[token.id] = replace(
                token,
                project=known.project,
                created=known.created,
                last_used=known.last_used,
                requests=known.requests,
                tokens=known.tokens,
            )
            self._changed("token", token.id)
            return True

        return self._do("update_token", update)

    def delete_token(self, id: str) -> Deferred[bool]:
        def delete() -> bool:
            if self._tokens.pop(id, None) is None:
                return False
            self._changed("token", id)
            return True

        return self._do("delete_token", delete)

    def _digested(self, token: Token) -> bool:
        return any(one.digest == token.digest and one.id != token.id for one in self._tokens.values())

    # What is used, and what changes.

    def count(self, batch: Sequence[Used]) -> Deferred[dict[str, int]]:
        def count() -> dict[str, int]:
            for used in batch:
                rows.used_row(used)
            for used in batch:
                self._add(used)
            return {
                used.token: self._tokens[used.token].requests for used in batch if used.token in self._tokens
            }

        return self._do("count", count)

    def _add(self, used: Used) -> None:
        sums = self._usage.setdefault((used.day, used.project, used.token, used.model), [0, 0, 0, 0.0])
        for at, amount in enumerate((used.requests, used.input, used.output, used.cost)):
            sums[at] += amount
        token = self._tokens.get(used.token)
        if token is not None:
            self._tokens[token.id] = replace(
                token,
                requests=token.requests + used.requests,
                tokens=token.tokens + used.input + used.output,
                last_used=max(token.last_used or used.last_used, used.last_used),
            )

    def changes(self, since: int) -> Deferred[Changes]:
        def changes() -> Changes:
            first, last = (self._changes[0][0], self._changes[-1][0]) if self._changes else (1, 0)
            if since > last or since < first - 1:
                return Changes(last, all=True)
            later = [(kind, id) for number, kind, id in self._changes if number > since]
            projects = dict.fromkeys(id for kind, id in later if kind == "project")
            tokens = dict.fromkeys(id for kind, id in later if kind == "token")
            return Changes(last, tuple(projects), tuple(tokens))

        return self._do("changes", changes)

    def _changed(self, kind: str, id: str) -> None:
        last = self._changes[-1][0] if self._changes else 0
        self._changes.append((last + 1, kind, id))
        del self._changes[:-KEPT]

    def usage(self, by: Literal["project", "token", "model"], since: str) -> Deferred[list[UsageRow]]:
        def usage() -> list[UsageRow]:
            sums: dict[str, list[float]] = {}
            for (day, *names), amounts in self._usage.items():
                if day < since:
                    continue
                known = sums.setdefault(names[("project", "token", "model").index(by)], [0, 0, 0, 0.0])
                known[:] = [a + b for a, b in zip(known, amounts, strict=True)]
            return in_order(
                UsageRow(name, int(requests), int(input), int(output), cost)
                for name, (requests, input, output, cost) in sums.items()
            )

        return self._do("usage", usage)

    def rotate_key(self, new: Secret) -> Deferred[int]:
        def rotate() -> int:
            if not new.reveal():
                raise ValueError("access.secret_key is empty")
            return sum(len(project.credentials) for project in self._projects.values())

        return self._do("rotate_key", rotate)
