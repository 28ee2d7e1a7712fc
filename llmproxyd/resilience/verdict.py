"""What an answer is taken for: the operator's rules about bodies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recategorize:
    """An answer whose body matches is taken for one with another status.

    :param pattern: regular expression, searched in the body, upper and lower case alike.
    :param original_status: only answers with it, ``None`` for any.
    :param new_status: what the policy sees; the client sees it too if it gets an answer of ours.
    """

    pattern: str
    new_status: int
    original_status: int | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class HardStop:
    """An answer whose body matches is final: no retry, and a word for the user.

    :param pattern: regular expression, searched in the body, upper and lower case alike.
    :param user_message: what the client is told.
    :param preserve_original_response: put the upstream's own body beneath it.
    """

    pattern: str
    user_message: str
    description: str = ""
    preserve_original_response: bool = True
