"""The keys under ``verdicts``: what is expected of clients after a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from llmproxyd.config.kinds import Positive
from llmproxyd.config.markers import AtLeast


@dataclass(frozen=True, slots=True)
class VerdictSettings:
    """What clients do after a failure is watched, and told with the requests that prove it.

    :param enabled: true watches always, and so reads every request whole; ``None`` only from a rehearsed
        failure on, as long as its clients may come back.
    :param max_retries: more of them are too many.
    :param window: seconds for which a client is waited for after a failure, beyond what it was asked to wait.
    """

    enabled: bool | None = None
    max_retries: Annotated[int, AtLeast(0)] = 10
    window: Positive = 120.0
