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
        "Options: ``after=N`` lets so many requests pass first, ``for=5m`` ends it, ``retry_after=2`` is\n"
        "told to the client; ``upstream=NAME``, ``model=gpt-4*``, ``path=/v1/*`` and ``stream=yes|no``\n"
        "narrow it.\n\n"
        f"{_filled(f'Kinds: {_literals((*KINDS, UNKNOWN))}.')}\n"
    )


def _verb(verb: Verb) -> str:
    lines = [f"``{verb.usage}``", _below(f"{verb.about}.")]
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
        "A filter is ``FIELD=VALUE``, ``FIELD!=VALUE`` or, of texts, ``FIELD~VALUE`` (contains, in any\n"
        "case); numbers and durations have ``<``, ``<=``, ``>`` and ``>=``. Several must all hold.\n\n"
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
