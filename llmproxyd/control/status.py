"""The verb ``status``: how everything stands, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

Part = Callable[[], Mapping[str, object]]


class Status:
    """Puts together what others tell of themselves.

    :param state: the members at the top (``version``, ``uptime``, …).
    :param parts: further members by name (``store``, ``cache``, ``limits``, …).
    """

    log = Logger()

    def __init__(self, state: Part, parts: Mapping[str, Part]) -> None:
        self._state = state
        self._parts = parts

    def show(self) -> dict[str, Any]:
        """The members; a part that fails says so and spoils no other."""
        told: dict[str, Any] = dict(self._state())
        for name, part in self._parts.items():
            try:
                told[name] = part()
            except Exception:
                self.log.failure("{name} cannot tell its state", name=name)
                told[name] = {"error": "unknown; the daemon's log says why"}
        return told
