"""How many attempts an upstream may get beyond the requests that are for it."""

from __future__ import annotations

from dataclasses import dataclass

from llmproxyd.units import Duration


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """Retries never multiply an outage.

    :param ratio: retries per request, over the window.
    :param min_per_second: retries a second that are always granted.
    :param window: seconds.
    """

    ratio: float = 0.2
    min_per_second: float = 10.0
    window: Duration = 10.0
