"""Values that a parameter may have."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Iterable, Iterator

MAX_TEXT = 1024
"""Characters of a value that is held against globs."""

_GLOB = re.compile(r"[*?\[]")


class Values:
    """Accepted values: as they are, or globs.

    :ivar words: the list as it was given, for people.
    """

    __slots__ = ("_exact", "_globs", "words")

    def __init__(self, accepted: Iterable[str]) -> None:
        self.words = tuple(accepted)
        globs = [one for one in self.words if _GLOB.search(one)]
        self._exact = frozenset(self.words) | {_number(one) or one for one in self.words}
        self._globs = re.compile("|".join(map(fnmatch.translate, globs))) if globs else None

    @property
    def all(self) -> bool:
        """Whether anything is accepted."""
        return "*" in self.words

    def accept(self, value: object) -> bool:
        """Whether *value*, as JSON or a form has it, is accepted.

        A text as it is, a number, ``true``, ``false`` and ``null`` as JSON writes them, an array if
        each of its members is; an object never is: too much could be in it.
        """
        items = value if isinstance(value, list) else (value,)
        return all(self._takes(text) for text in _texts(items))

    def _takes(self, text: str | None) -> bool:
        if text is None:
            return False
        if text in self._exact:
            return True
        # What cannot be seen is in nobody's name, and upstreams may cut or decode it away.
        if self._globs is None or len(text) > MAX_TEXT or not text.isprintable() or "%" in text:
            return False
        return self._globs.match(text) is not None


def _texts(items: Iterable[object]) -> Iterator[str | None]:
    for item in items:
        if isinstance(item, str):
            yield item
        elif isinstance(item, float) and item.is_integer() and abs(item) < 2**53:
            yield str(int(item))
        elif item is None or isinstance(item, bool | int | float):
            yield json.dumps(item)
        else:
            yield None


def _number(text: str) -> str | None:
    """The JSON number *text* as numbers are compared (``1.0`` as ``1``), ``None`` if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return next(_texts((value,)))
