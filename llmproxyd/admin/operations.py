"""All that the admin API can do, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from llmproxyd.control.caches import Caches
from llmproxyd.control.probes import Probes
from llmproxyd.control.projects import Projects
from llmproxyd.control.status import Status
from llmproxyd.control.switches import Switches
from llmproxyd.control.verdictverbs import Verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """The objects of control.  What is ``None`` is off, and says so to whoever asks for it.

    :param config: what is in force as plain values, secrets redacted
        (:func:`llmproxyd.config.dump.dumped`).
    :param requests: so many of the last requests, the newest first.
    :param metrics: the page that Prometheus reads, and its media type.
    :param errors: what the error log holds, summed up.
    :param verdicts: on what clients do after a failure.
    """

    status: Status
    switches: Switches
    config: Callable[[], Mapping[str, object]]
    projects: Projects | None = None
    caches: Caches | None = None
    probes: Probes | None = None
    requests: Callable[[int], Sequence[Mapping[str, object]]] | None = None
    metrics: Callable[[], tuple[bytes, bytes]] | None = None
    errors: Callable[[], Deferred[Mapping[str, object]]] | None = None
    verdicts: Verdicts | None = None
