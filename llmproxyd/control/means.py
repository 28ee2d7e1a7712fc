"""What verbs need of parts of the daemon, each of which may be off or not be there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from llmproxyd.control.caches import Caches
from llmproxyd.control.probes import Probes
from llmproxyd.control.projects import Projects
from llmproxyd.control.scenarios import Scenarios
from llmproxyd.control.status import Status
from llmproxyd.language.filters import Filter

Row = Mapping[str, Any]
"""One thing as JSON takes it."""


class Journal(Protocol):
    """The last requests.  Rows have the members of :data:`~llmproxyd.language.filters.FIELDS`."""

    def recent(self, filters: Sequence[Filter], limit: int) -> Sequence[Row]:
        """The last *limit* that all *filters* let through, the newest last."""
        ...

    def explain(self, id: str) -> Row | None:
        """All that is known of one request, by our id or the upstream's; ``None`` if nothing is.

        :func:`~llmproxyd.observe.explained.explain_text` makes a text of it.
        :raises Refused: several have an id that begins so.
        """
        ...

    def follow(self, filters: Sequence[Filter], emit: Callable[[Row], None]) -> Callable[[], None]:
        """Hand each request that ends from now on to *emit*, until the result is called."""
        ...


class Report(Protocol):
    """What came of reading the configuration again."""

    @property
    def problems(self) -> Sequence[str]:
        """What is wrong with it; then nothing has changed."""
        ...

    @property
    def changed(self) -> Sequence[tuple[str, object, object]]:
        """Keys, and what they were and are, as they may be shown."""
        ...

    @property
    def restart(self) -> Sequence[str]:
        """Keys that differ and need a restart."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """As at the start."""
        ...


class Reloads(Protocol):
    """Reads the configuration again.  Either verb may take its time."""

    def check(self) -> Report | Deferred[Any]:
        """What a reload would change; nothing changes."""
        ...

    def reload(self) -> Report | Deferred[Any]:
        """Go by the configuration as it is now."""
        ...


class Places(Protocol):
    """The upstreams, by name."""

    def list(self) -> Sequence[Row]:
        """Each with ``name``, ``provider``, ``base_url``, ``state`` (``enabled``, ``draining``,
        ``drained``) and ``active`` (requests under way there); further members as there are.
        """
        ...

    def drain(self, name: str) -> None:
        """Send no further request there; those under way end by themselves."""
        ...

    def enable(self, name: str) -> None:
        """Send requests there again."""
        ...


class SetLevel(Protocol):
    """Sets the log level of a namespace and what is below it."""

    def __call__(self, namespace: str, level: str) -> None:
        """*level* is one of :data:`~llmproxyd.language.table.LEVELS`."""
        ...


class Watch(Protocol):
    """Watches what clients do after a failure."""

    def verdicts(self, *, test: str | None = None, over: bool = False) -> Sequence[Row]:
        """What there is to say of them, the oldest first.

        :param test: only of this test's requests.
        :param over: also what there would be to say if no client came back any more.
        """
        ...

    def dropped(self) -> Mapping[str, int]:
        """What had to be forgotten before its time, as it was too much."""
        ...

    def clear(self) -> int:
        """Forget everything; how many verdicts there were."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """All of it.  What is ``None`` is off, and its verbs say how it is switched on.

    :param config: what is in force as plain values, secrets redacted.
    :param connections: of clients, open now: rows with ``peer``, ``age``, ``idle`` (seconds),
        ``requests`` (so far), and ``request`` (method and path of the one under way, or ``None``).
    :param namespaces: of the log, for completion.
    """

    status: Status | None = None
    journal: Journal | None = None
    watch: Watch | None = None
    reloads: Reloads | None = None
    places: Places | None = None
    caches: Caches | None = None
    projects: Projects | None = None
    probes: Probes | None = None
    config: Callable[[], Mapping[str, object]] | None = None
    connections: Callable[[], Sequence[Row]] | None = None
    set_level: SetLevel | None = None
    scenarios: Scenarios | None = None
    namespaces: Callable[[], Sequence[str]] = tuple


NO_MEANS = Means()
"""Nothing but faults and breakers."""
