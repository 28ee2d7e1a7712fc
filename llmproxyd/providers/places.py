"""Places in a JSON object, and how what stands at them is found: one, or many in one walk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

Place = tuple[str, ...]
"""A path of keys into a JSON object: ``("usage", "prompt_tokens")``."""


def at(value: object, place: Place) -> object:
    """What stands at *place* in *value*, ``None`` if nothing does.

    Where an array stands in the way, the first of its objects that has the rest is taken.
    """
    for number, key in enumerate(place):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list):
            rest = place[number:]
            for item in value:
                if isinstance(item, dict) and (found := at(item, rest)) is not None:
                    return found
            return None
        else:
            return None
    return value


class Places:
    """Several places, each with a meaning; what they have in common is walked once.

    :param places: by meaning; none is empty.
    """

    __slots__ = ("_all", "_below", "_here")

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._all = tuple(places.items())
        self._here = tuple((place[0], meaning) for meaning, place in self._all if len(place) == 1)
        below: dict[str, dict[str, Place]] = {}
        for meaning, place in self._all:
            if len(place) > 1:
                below.setdefault(place[0], {})[meaning] = place[1:]
        self._below = tuple((key, Places(rest)) for key, rest in below.items())

    def gather(self, value: object, read: Callable[[object], T | None], found: dict[str, T]) -> None:
        """Put what stands at these places in *value* into *found*, by meaning.

        :param read: what is made of a value; ``None`` for one that does not count.
        """
        if isinstance(value, dict):
            for key, meaning in self._here:
                if key in value:
                    made = read(value[key])
                    if made is not None:
                        found[meaning] = made
            for key, places in self._below:
                if key in value:
                    places.gather(value[key], read, found)
        elif isinstance(value, list):
            # Each may stand in another of the objects.
            for meaning, place in self._all:
                made = read(at(value, place))
                if made is not None:
                    found[meaning] = made
