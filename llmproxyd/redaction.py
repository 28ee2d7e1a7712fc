"""What must not be shown, and how it is shown instead.

Bottom of the house: knows nothing but text.  A secret is wrapped where it enters (the
configuration) and opened by the one piece of code that sends it to the upstream it is for;
anything that prints it by mistake prints :data:`REDACTED`.
"""

from __future__ import annotations

from hmac import compare_digest

REDACTED = "[redacted]"


class Secret:
    """A text that shows itself to :meth:`reveal` alone."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return REDACTED

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(REDACTED, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash(("secret", self._text))

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret cannot be pickled or copied out of the process")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self
