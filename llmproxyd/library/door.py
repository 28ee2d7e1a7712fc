"""A door before tokens and projects that a site keeps itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.access.presented import CHALLENGE
from llmproxyd.access.projects import Grant, Project, Token, check, project_problems
from llmproxyd.errors import Refused
from llmproxyd.library.bounded import bounded
from llmproxyd.library.interfaces import (
    ExpiredToken,
    InactiveToken,
    InvalidToken,
    LimitReached,
    ProjectNotFound,
    StoreUnavailable,
)
from llmproxyd.redaction import Secret

TIMEOUT = 5.0
"""Seconds within which validator and store have to answer together."""

MAX_TOKEN = 1024
"""Characters of a token."""

GRANTS = 1000
"""Projects whose grants are kept, so that what follows from them need not be worked out anew."""

_INVALID: Mapping[type[Exception], tuple[str, str]] = {
    InvalidToken: ("token_not_found", "This token is not known here."),
    ProjectNotFound: ("token_not_found", "This token is not known here."),
    InactiveToken: (
        "token_inactive",
        "This token was deactivated; ask whoever runs this proxy for another one.",
    ),
    ExpiredToken: ("token_expired", "This token has expired; ask whoever runs this proxy for a new one."),
}


class ValidatorDoor:
    """A :class:`~llmproxyd.store.interface.Door` before a validator and a store of projects.

    Both are asked for every request; nothing is remembered, so that what they say holds at once.

    :param validator: an :class:`~llmproxyd.library.interfaces.ITokenValidator`.
    :param projects: an :class:`~llmproxyd.library.interfaces.IProjectStore`.
    :param upstream: name of the one that a project's API key is for.
    :param enforce_active: refuse the tokens of projects that are not active.
    :param logger: is told why they fail.
    """

    def __init__(
        self,
        validator: Any,
        projects: Any,
        clock: IReactorTime,
        wall: Callable[[], float],
        *,
        upstream: str,
        enforce_active: bool,
        logger: Logger,
    ) -> None:
        self._validator = validator
        self._projects = projects
        self._clock = clock
        self._wall = wall
        self._upstream = upstream
        self._enforce_active = enforce_active
        self._log = logger
        self._grants: dict[str, Grant] = {}
        self._unusable: set[str] = set()
        self._down = False

    def admit(self, token: str) -> Deferred[Grant]:
        """See :meth:`Door.admit <llmproxyd.store.interface.Door.admit>`."""
        if len(token) > MAX_TOKEN:
            raise _invalid(InvalidToken)
        asked = bounded(Deferred.fromCoroutine(self._ask(token)), TIMEOUT, self._clock)
        return asked.addCallbacks(self._admitted, self._not_told, (), {}, (token,), {})

    def again(self, grant: Grant) -> bool:
        """Each request is validated."""
        return False

    def returned(self, grant: Grant) -> None:
        """Nothing: what was tracked stays so."""

    def used(self, grant: Grant, model: str, input: int, output: int, cost: float, requests: int = 1) -> None:
        """Nothing: events tell it."""

    @property
    def ready(self) -> bool:
        """Whether both have answered when they were last asked."""
        return not self._down

    async def _ask(self, token: str) -> Project:
        """The project of *token*, with its credentials."""
        id = await maybeDeferred(self._validator.validate_with_tracking, token)
        if not isinstance(id, str) or not id:
            raise TypeError("validate_with_tracking did not tell the id of a project")
        store = self._projects
        asked = [
            maybeDeferred(store.get_project_by_id, id),
            maybeDeferred(store.get_api_key_for_project, id),
        ]
        if self._enforce_active:
            asked.append(maybeDeferred(store.get_project_active, id))
        try:
            project, key, *active = await gatherResults(asked, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        if not isinstance(project, Project):
            raise TypeError("get_project_by_id did not tell a Project")
        credentials = {self._upstream: _secret(key)} if key else {}
        return replace(
            project,
            id=id,
            active=bool(project.active and all(active)),
            credentials={**credentials, **project.credentials},
        )

    def _admitted(self, project: Project) -> Grant:
        self._up()
        grant = self._grants.get(project.id)
        if grant is None or grant.project != project:
            self._check(project)
            if len(self._grants) >= GRANTS:
                self._grants.clear()
            # A validator tells no more of a token than whose it is.
            token = Token(id="-", project=project.id, digest=b"", shown="-")
            grant = self._grants[project.id] = Grant(project, token)
        check(project, grant.token, self._wall(), used=0, enforce_active=self._enforce_active)
        return grant

    def _check(self, project: Project) -> None:
        """Refuse what could not be sent, and say why once.

        :raises Refused: 503.
        """
        for key, problem in project_problems(project):
            if project.id not in self._unusable:
                if len(self._unusable) >= GRANTS:
                    self._unusable.clear()
                self._unusable.add(project.id)
                message = "The project {id} cannot be used: {key}: {problem}"
                self._log.error(message, id=project.id, key=key, problem=problem)
            raise _unavailable()
        self._unusable.discard(project.id)

    def _not_told(self, failure: Failure, token: str) -> Grant:
        error = failure.value
        if isinstance(error, InvalidToken | ProjectNotFound):
            self._up()
            raise _invalid(type(error))
        if isinstance(error, LimitReached):
            self._up()
            raise Refused(
                429,
                "rate_limit_exceeded",
                "The requests that this token was made for are used up.",
                ((b"retry-after", b"%d" % max(1, -int(-error.retry_after // 1))),),
            )
        if not self._down:
            self._down = True
            if isinstance(error, StoreUnavailable | TimeoutError):
                self._log.warn("Tokens cannot be checked: {why}", why=str(error) or type(error).__name__)
            else:
                self._log.failure("Tokens cannot be checked", failure, secrets=(token,))
        raise _unavailable()

    def _up(self) -> None:
        if self._down:
            self._down = False
            self._log.info("Tokens can be checked again")


def _secret(key: str | Secret) -> Secret:
    return key if isinstance(key, Secret) else Secret(key)


def _invalid(kind: type[Exception]) -> Refused:
    code, message = next(_INVALID[one] for one in kind.__mro__ if one in _INVALID)
    return Refused(401, code, message, CHALLENGE)


def _unavailable() -> Refused:
    return Refused(
        503,
        "store_unavailable",
        "Tokens cannot be checked at the moment. Try again shortly.",
        ((b"retry-after", b"1"),),
    )
