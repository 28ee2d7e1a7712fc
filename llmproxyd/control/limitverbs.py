"""The verbs about rehearsed rate limits, as lines."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches

from llmproxyd.control.answers import Answer
from llmproxyd.control.rehearsal import Rehearsal
from llmproxyd.control.tables import table
from llmproxyd.control.turn import Turn
from llmproxyd.faults.language import LanguageError, shown
from llmproxyd.faults.limitlines import describe_limit, limit_line
from llmproxyd.faults.limits import MOST_LIMITS, Limit


async def add(turn: Turn) -> Answer:
    """``limit``."""
    control = turn.control
    limit = _named(control, turn.values["limit"], turn.values["name"])

    def added() -> Answer:
        control.engine.limits.add(limit)
        control.limits_changed()
        return control.status(colour=turn.colour)

    return await turn.change(
        "limit.set",
        limit.name,
        added,
        check=lambda: _check(control, limit),
        before={"faults": control.mode_in_words()},
        after={"limit": limit_line(limit)},
    )


def listing(turn: Turn) -> Answer:
    """``limit list``."""
    control = turn.control
    now, limits = control.monotonic(), control.limits()
    data = {"limits": control.faults()["limits"]}
    if not limits:
        return Answer("No limit is set.\n", data=data)
    rows = [
        (
            one.limit.name,
            "file" if one.file else "operator",
            describe_limit(one, now),
            one.passed,
            one.refused,
        )
        for one in limits
    ]
    head = ("NAME", "FROM", "LIMIT", "LET THROUGH", "REFUSED")
    return Answer(table(head, rows, right=(3, 4), colour=turn.colour) + "\n", data=data)


async def remove(turn: Turn) -> Answer:
    """``limit rm``."""
    control, name = turn.control, turn.values["name"]

    def removed() -> Answer:
        control.engine.limits.remove(name)
        control.limits_changed()
        return control.status(colour=turn.colour)

    return await turn.change(
        "limit.remove",
        shown(name),
        removed,
        check=lambda: _find(control, name),
        before={"faults": control.mode_in_words()},
    )


async def clear(turn: Turn) -> Answer:
    """``limit clear``."""
    control = turn.control

    def cleared() -> Answer:
        if control.engine.limits.working:
            control.engine.limits.clear()
            control.limits_changed()
        return control.status(colour=turn.colour)

    return await turn.change("limit.clear", "all", cleared, before={"faults": control.mode_in_words()})


def _named(control: Rehearsal, limit: Limit, name: str | None) -> Limit:
    """*limit* under *name*, or under the first of ``limit-1``, ``limit-2`` … that is free; with an end."""
    taken = {one.limit.name for one in control.limits()}
    free = (f"limit-{number}" for number in range(1, len(taken) + 2))
    lasts = control.forget_after if limit.lasts is None else limit.lasts
    return replace(limit, name=name or next(one for one in free if one not in taken), lasts=lasts)


def _check(control: Rehearsal, limit: Limit) -> None:
    """Refuse a *limit* that cannot be meant.

    :raises LanguageError: with why.
    """
    control.check_allowed()
    if limit.match.upstream is not None:
        control.check_upstream(limit.match.upstream)
    if any(one.limit.name == limit.name for one in control.limits()):
        raise LanguageError(f'the name "{shown(limit.name)}" is taken; limit list shows all')
    if len(control.limits()) >= MOST_LIMITS:
        raise LanguageError(f"{MOST_LIMITS} limits are set already; limit rm takes one away")


def _find(control: Rehearsal, name: str) -> None:
    """Refuse the *name* of a limit that is not there.

    :raises LanguageError: with those that are.
    """
    known = [one.limit.name for one in control.limits()]
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise LanguageError(f'there is no limit "{shown(name)}"{hint} (known: {", ".join(known) or "none"})')
