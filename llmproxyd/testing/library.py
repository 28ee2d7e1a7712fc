"""In memory what a site may bring of its own: for tests of the code around a proxy.

A cache in memory is :class:`llmproxyd.cache.memory.MemoryCache`, a store of projects and tokens as the
daemon has it :class:`llmproxyd.testing.store.MemoryStore`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zope.interface import implementer

from llmproxyd.library.interfaces import (
    Conflict,
    IAuditLogger,
    IEventBus,
    InvalidToken,
    IProjectStore,
    ITokenValidator,
    Project,
    ProjectNotFound,
)


@implementer(ITokenValidator)
class MemoryValidator:
    """Tokens by what a client presents.

    :ivar tokens: the project's id by token.
    :ivar error: is raised instead, if it is set.
    :ivar tracked: how often each token was used.
    """

    def __init__(self, tokens: Mapping[str, str] | None = None, error: Exception | None = None) -> None:
        self.tokens = dict(tokens or {})
        self.error = error
        self.tracked: Counter[str] = Counter()

    def validate(self, token: str) -> str:
        if self.error is not None:
            raise self.error
        if token not in self.tokens:
            raise InvalidToken
        return self.tokens[token]

    def validate_with_tracking(self, token: str) -> str:
        project = self.validate(token)
        self.tracked[token] += 1
        return project


@implementer(IProjectStore)
class MemoryProjects:
    """Projects by id.

    :param keys: the provider's key by the id of a project, which is made with it.
    :ivar keys: the same; change it as you like.
    :ivar error: is raised by every call, if it is set.
    """

    def __init__(self, keys: Mapping[str, str] | None = None, error: Exception | None = None) -> None:
        self.keys = dict(keys or {})
        self.error = error
        self.projects = {id: Project(id=id, name=id) for id in self.keys}

    def get_api_key_for_project(self, project_id: str) -> str | None:
        self.get_project_by_id(project_id)
        return self.keys.get(project_id)

    def get_project_active(self, project_id: str) -> bool:
        return self.get_project_by_id(project_id).active

    def list_projects(self) -> list[Project]:
        self._try()
        return list(self.projects.values())

    def create_project(self, project: Project) -> None:
        self._try()
        if project.id in self.projects:
            raise Conflict(f"there is a project {project.id} already")
        self.projects[project.id] = project

    def get_project_by_id(self, project_id: str) -> Project:
        self._try()
        if project_id not in self.projects:
            raise ProjectNotFound
        return self.projects[project_id]

    def update_project(self, project: Project) -> None:
        self.get_project_by_id(project.id)
        self.projects[project.id] = project

    def delete_project(self, project_id: str) -> None:
        self.get_project_by_id(project_id)
        del self.projects[project_id]
        self.keys.pop(project_id, None)

    def set_active(self, project_id: str, active: bool) -> None:
        """Switch a project on or off."""
        self.projects[project_id] = replace(self.get_project_by_id(project_id), active=active)

    def _try(self) -> None:
        if self.error is not None:
            raise self.error


@implementer(IAuditLogger)
class MemoryAudit:
    """Keeps what was recorded.

    :ivar entries: in order.
    """

    def __init__(self) -> None:
        self.entries: list[Mapping[str, Any]] = []

    def record(self, entry: Mapping[str, Any]) -> None:
        self.entries.append(entry)


@implementer(IEventBus)
class MemoryBus:
    """Keeps what was published.

    :ivar events: in order.
    """

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []

    def publish(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)
