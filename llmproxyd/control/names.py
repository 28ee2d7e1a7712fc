"""Names of what there is at the moment."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import overload


class Names(Sequence[str]):
    """The names of what there is now, in order: a reload may have changed them.

    :param of: what is looked at anew each time.
    """

    def __init__(self, of: Collection[str]) -> None:
        self._of = of

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        """The name at *place*."""
        return sorted(self._of)[place]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._of)

    def __contains__(self, name: object) -> bool:
        """Whether there is one of this *name*."""
        return name in self._of

    def __iter__(self) -> Iterator[str]:
        """All of them."""
        return iter(sorted(self._of))
