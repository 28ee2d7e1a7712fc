"""What endpoint strings mean, as far as it can be known before they are opened."""

from __future__ import annotations

import re
from dataclasses import dataclass

_COLON = re.compile(r"(?<!\\):")
_EVERYWHERE = ("", "0.0.0.0", "::")
_OTHERS = 0o007


@dataclass(frozen=True, slots=True)
class Place:
    """Where an endpoint listens.

    :param family: ``tcp``, ``tcp6``, ``unix``; anything else is known by its whole text.
    :param name: port, or path.
    :param interface: empty for all.
    """

    family: str
    name: str
    interface: str = ""

    def meets(self, other: Place) -> bool:
        """Whether not both can be opened."""
        if (self.family, self.name) != (other.family, other.name) or self.name == "0":
            return False
        interfaces = (self.interface, other.interface)
        return interfaces[0] == interfaces[1] or any(one in _EVERYWHERE for one in interfaces)


def place(endpoint: str) -> Place:
    """Where *endpoint*, which is valid, listens."""
    kind, *arguments = _COLON.split(endpoint)
    named = dict(one.split("=", 1) for one in arguments if "=" in one)
    plain = [one for one in arguments if "=" not in one]
    first = plain[0] if plain else ""
    if kind == "unix":
        return Place("unix", named.get("address", first))
    if kind in ("tcp", "tcp6", "ssl", "tls"):
        family = "tcp6" if kind == "tcp6" else "tcp"
        return Place(family, named.get("port", first), named.get("interface", "").replace("\\", ""))
    return Place(kind, endpoint)


def private(endpoint: str) -> bool:
    """Whether only users of this machine whom its files' permissions let in can connect."""
    kind, *arguments = _COLON.split(endpoint)
    modes = [one.removeprefix("mode=") for one in arguments if one.startswith("mode=")]
    if kind != "unix" or not modes:
        return False
    return all(re.fullmatch("[0-7]+", mode) and not int(mode, 8) & _OTHERS for mode in modes)
