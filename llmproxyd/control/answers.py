"""What a console hands to a verb, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from llmproxyd.errors import Refused

Stop = Callable[[], None]
"""Ends what was begun; to be called once."""


@dataclass(frozen=True, slots=True)
class Console:
    """Where a line was written, and what can be shown there.

    :param own: the daemon's own standard input, where ``q`` and ``quit`` end the daemon.
    :param lasting: it goes on after the answer; one command over SSH or the admin API does not, so
        that there is nothing to leave and nothing to follow.
    :param terminal: somebody sits there who can be asked.
    :param colour: whether texts may hold SGR sequences (ECMA-48 §8.3.117).
    :param json: texts are JSON, as though ``--json`` ended every line.
    :param python: whether it can open an interpreter, and may (``operator.python``).
    """

    own: bool = False
    lasting: bool = True
    terminal: bool = False
    colour: bool = False
    json: bool = False
    python: bool = False


OWN = Console(own=True)
"""The daemon's own standard input, read as lines."""

ONCE = Console(lasting=False)
"""One command, then nothing more: the admin API, ``ssh host status``."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to.

    :param text: whole lines, for people; JSON where that was asked for.
    :param ok: ``False`` when it was refused, or failed.
    :param data: the same as JSON takes it.
    :param leaves: this console ends, the daemon goes on.
    :param asks: a question.  Where somebody answers it with ``yes``, :attr:`confirm` is called and
        comes to the real answer; after anything else nothing has changed.
    :param follow: to be called with what takes further texts (whole lines) as they come, until the
        result is called; until then the console takes no command.  :attr:`text` is shown before.
    :param python: the console opens an interpreter.
    :param error: why it was refused, for edges that tell status and code.
    """

    text: str
    ok: bool = True
    data: object = None
    leaves: bool = False
    asks: str | None = None
    confirm: Callable[[], Answer | Deferred[Answer]] | None = None
    follow: Callable[[Callable[[str], None]], Stop] | None = None
    python: bool = False
    error: Refused | None = None
