"""What a site may bring of its own, and the errors that are understood.

Every method may answer at once, with a Deferred or as a coroutine, unless it says otherwise.  None may
block.  What fails in another way than described, or takes too long, harms no more than its own
request: clients never see an exception's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Interface, classImplements

from llmproxyd.access.projects import Project as Project
from llmproxyd.cache.interface import Entry as Entry
from llmproxyd.cache.interface import Purge as Purge
from llmproxyd.cache.memory import MemoryCache
from llmproxyd.cache.redis import RedisCache
from llmproxyd.store.interface import Conflict as Conflict
from llmproxyd.store.interface import StoreUnavailable as StoreUnavailable


class InvalidToken(Exception):
    """There is no such token: 401 ``token_not_found``."""


class InactiveToken(InvalidToken):
    """It was deactivated: 401 ``token_inactive``."""


class ExpiredToken(InvalidToken):
    """Its time is over: 401 ``token_expired``."""


class LimitReached(Exception):
    """It may not be used now, or no more: 429 ``rate_limit_exceeded``.

    :param retry_after: seconds; the default is long enough for SDKs not to wait.
    """

    def __init__(self, retry_after: float = 86_400) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class ProjectNotFound(Exception):
    """There is no such project; its tokens are good for nothing: 401 ``token_not_found``."""


class ITokenValidator(Interface):
    """Knows the tokens that clients present."""

    def validate(token: str) -> Any:
        """The id of the project that *token* belongs to; nothing is counted.

        It is for the site's own use; requests are counted.

        :raises InvalidToken: or one of its kinds.
        """

    def validate_with_tracking(token: str) -> Any:
        """The same, counted as one request.  Called once for each request that presents *token*.

        :raises InvalidToken: or one of its kinds.
        :raises LimitReached: it is used up.
        """


class IProjectStore(Interface):
    """Knows the projects that tokens belong to.

    For each request :meth:`get_project_by_id`, :meth:`get_api_key_for_project` and, unless
    ``access.enforce_active`` is off, :meth:`get_project_active` are asked, at the same time; what they
    tell is not remembered.  The others are for the site's own use.  All may fail with
    :exc:`StoreUnavailable`.
    """

    def get_api_key_for_project(project_id: str) -> Any:
        """The provider's key, for the default upstream; ``None`` if there is none.

        It goes nowhere else: other upstreams, and this one if they name it, take their keys from
        :attr:`Project.credentials`.  An upstream for which there is neither is not to be used.

        :raises ProjectNotFound: there is no such project.
        """

    def get_project_active(project_id: str) -> Any:
        """Whether the project's tokens are good for anything.

        :raises ProjectNotFound: there is no such project.
        """

    def list_projects() -> Any:
        """All projects, in any order."""

    def create_project(project: Project) -> Any:
        """Keep a new project.

        :raises Conflict: there is one of its id.
        """

    def get_project_by_id(project_id: str) -> Any:
        """The :class:`Project`: further credentials, its allowlists, its limits.

        :raises ProjectNotFound: there is no such project.
        """

    def update_project(project: Project) -> Any:
        """Put *project* in the place of the one with its id.

        :raises ProjectNotFound: there is no such project.
        """

    def delete_project(project_id: str) -> Any:
        """Forget a project.

        :raises ProjectNotFound: there is no such project.
        """


class IAuditLogger(Interface):
    """Takes what an auditor wants to know."""

    def record(entry: Mapping[str, Any]) -> Any:
        """Keep *entry*: a client was refused at the door.

        :param entry: ``ts`` (RFC 3339), ``event`` (``denied``), ``action`` (``authenticate``),
            ``outcome`` (``refused``), ``address`` of the client, ``code`` of the refusal and ``shown``,
            the first characters of the token where it has our form.
        """


class IEventBus(Interface):
    """Takes an event for each finished request."""

    def publish(event: Mapping[str, Any]) -> Any:
        """Take *event*, a JSON object as docs/events.rst describes it; it must not be changed."""


class ICache(Interface):
    """Keeps answers by key, several variants under one.

    What fails or takes longer than a second is a miss.  Nobody waits for :meth:`put`, :meth:`drop` and
    :meth:`invalidate`; :meth:`stats` answers at once.
    """

    def get(key: bytes) -> Sequence[Entry] | Deferred[Sequence[Entry]]:
        """All variants under *key*, the most recent first."""

    def put(key: bytes, entry: Entry) -> None:
        """Keep *entry*, in place of a variant that has the same ``varied``."""

    def drop(key: bytes, project: str = "") -> None:
        """Forget all variants under *key*."""

    def invalidate(url: bytes, project: str) -> None:
        """Forget GET and HEAD entries of *url* (:attr:`Entry.url`) of one project."""

    def purge(what: Purge) -> Deferred[int]:
        """Forget what *what* says; how many entries there were."""

    def stats() -> Mapping[str, object]:
        """``backend``, ``entries``, ``bytes``, ``evictions``, ``errors``, as far as they are known."""

    def close() -> Deferred[None] | None:
        """No more is asked.  It is for the site's own use: what it brings is not closed for it."""


classImplements(MemoryCache, ICache)
classImplements(RedisCache, ICache)
