"""The language as a document: docs/commands.rst is what :func:`reference` returns."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill

from llmproxyd.faults.language import KINDS, MODIFIER_HELP
from llmproxyd.faults.rules import UNKNOWN
from llmproxyd.language.filters import DURATIONS, NUMBERS, TEXTS
from llmproxyd.language.grammar import Table, Verb

WIDTH = 110
"""Columns of a line, where it can be broken."""

_HEAD = """\
========
Commands
========

One language for the daemon's own standard input, telnet, SSH, ``llmproxyctl run`` and the admin API. This
page is made from the table by which lines are read.

- ``--json`` at the end of any line gives JSON.
- Words that hold white space stand in quotes: ``project show "my team"``.
- What is not understood is refused, with what would be accepted, and nothing has changed.
- Every change is in the audit log, with who made it.
- At the daemon's own standard input ``q`` and ``quit`` stop the daemon; elsewhere they leave the console.
  ``shutdown`` stops the daemon from anywhere, and asks at a terminal.
"""


_FILTER_HELP = (
    "A filter is ``FIELD=VALUE``, ``FIELD!=VALUE`` or, of texts, ``FIELD~VALUE`` (contains, in any case); "
    "numbers and durations have ``<``, ``<=``, ``>`` and ``>=``. The value of a text may be a glob, which "
    "tells upper case from lower: ``model=gpt-*``, ``path=/v1/*`` (``*`` stands for any text, ``?`` for one "
    "character, ``[45]`` for one of these). ``fault=*`` finds requests that have one, ``fault!=*`` the "
    "others. A shell wants globs in quotes. Several filters must all hold."
)


def reference(table: Table) -> str:
    """*table* as reStructuredText."""
    parts = [_HEAD]
    for section in dict.fromkeys(one.section for one in table.verbs):
        parts.append(f"{section}\n{'=' * len(section)}\n")
        if section == table.verbs[0].section:
            parts.append(_faults())
        verbs = [one for one in table.verbs if one.section == section and not one.hidden]
        parts += [_verb(one) for one in verbs]
    parts.append(_filters())
    return "\n".join(parts)


def _faults() -> str:
    return (
        f"How often: {MODIFIER_HELP}.\n\n"
        "Options of every fault: ``after=N`` lets so many requests pass first, ``for=5m`` ends it,\n"
        "``max=N`` ends it after so many hits, ``percent=N`` is a share; ``upstream=NAME``,\n"
        "``model=gpt-4*``, ``path=/v1/*`` and ``stream=yes|no`` narrow it. ``place=upstream`` has it happen\n"
        "to attempts, so that retries, breakers and the hold see it. Dashes may stand for underscores.\n\n"
        "Options of errors: ``retry_after=2`` is told to the client.\n\n"
        "Options of what breaks an answer: ``at=N`` is after so many content events, ``at=start`` before\n"
        "the first of them, ``at=tool`` within the arguments of a tool call, ``at=end`` in place of what\n"
        "closes the stream, ``at=1000B`` and ``at=50%bytes`` count bytes. The ``for=`` of ``stall`` and\n"
        "``delay`` is the silence; ``ttl=5m`` ends these rules. The page on faults tells of every kind\n"
        "what clients make of it.\n\n"
        f"{_filled(f'Kinds of errors: {_literals((*KINDS, UNKNOWN))}.')}\n"
    )


def _verb(verb: Verb) -> str:
    lines = [f"``{verb.usage}``", _below(f"{verb.about}.".replace("*", r"\*"))]
    if verb.options:
        lines.append("")
        lines += [
            f"    - ``{one.name}{f' {one.shows}' if one.shows else ''}``: {one.about}" for one in verb.options
        ]
    if verb.examples:
        lines += ["", _below(f"For example {_literals(verb.examples)}.")]
    return "\n".join(lines) + "\n"


def _filters() -> str:
    return (
        "Filters\n=======\n\n"
        f"{_filled(_FILTER_HELP)}\n\n"
        f"- numbers: {_literals(NUMBERS)}\n"
        f"- durations, such as ``2s`` or ``250ms``: {_literals(DURATIONS)}\n"
        f"{_filled(f'- texts: {_literals(TEXTS)}', below='  ')}\n"
    )


def _below(text: str) -> str:
    return _filled("    " + text, below="    ")


def _filled(text: str, below: str = "") -> str:
    return fill(text, WIDTH, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)


def _literals(texts: Iterable[str]) -> str:
    return ", ".join(f"``{one}``" for one in texts)
