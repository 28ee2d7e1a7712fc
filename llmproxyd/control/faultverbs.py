"""The verbs about faults and breakers, as lines."""

from __future__ import annotations

from llmproxyd.control.answers import Answer
from llmproxyd.control.tables import table
from llmproxyd.control.turn import Turn
from llmproxyd.faults import words
from llmproxyd.faults.language import ClearFault, shown
from llmproxyd.faults.limitlines import describe_limit
from llmproxyd.faults.progress import progress
from llmproxyd.faults.rules import Rule


async def mode(turn: Turn) -> Answer:
    """``n``, ``c``, ``r``, ``u``, ``error``."""
    command, control = turn.values["command"], turn.control
    before = {"faults": control.mode_in_words()}
    target = shown(turn.line.strip())
    if isinstance(command, ClearFault):
        return await turn.change(
            "fault.clear",
            target,
            lambda: control.clear_fault(command.note),
            before=before,
            after={"faults": control.in_words_with(None)},
        )
    rule: Rule = control.commanded(command.rule)
    return await turn.change(
        "fault.set",
        target,
        lambda: control.set_fault(rule),
        check=lambda: control.check(rule),
        before=before,
        after={"faults": control.in_words_with(rule)},
    )


def listing(turn: Turn) -> Answer:
    """``fault list``."""
    control = turn.control
    now = control.monotonic()
    running = control.running()
    limits = control.limits()
    play = control.playing()
    if not running and not limits and play is None:
        return Answer("No fault: everything passes.\n", data=control.faults())
    standing = {id(one) for one in control.engine.standing}
    rows: list[tuple[object, ...]] = [
        (
            one.rule.name,
            "mode" if one is control.engine.mode else "operator" if id(one) in standing else "file",
            words.describe(one, now),
            one.hits,
        )
        for one in running
    ]
    if play is not None:
        rows.append((play.scenario.name, "scenario", progress(play), ""))
    rows += [
        (
            one.limit.name,
            "file" if one.file else "operator",
            f"Limit of {describe_limit(one, now)}",
            one.refused,
        )
        for one in limits
    ]
    text = table(("NAME", "FROM", "FAULT", "HITS"), rows, right=(3,), colour=turn.colour)
    return Answer(text + "\n", data=control.faults())


async def add(turn: Turn) -> Answer:
    """``fault add``."""
    control = turn.control
    rule = control.named(control.commanded(turn.values["rule"]), turn.values["name"])
    return await turn.change(
        "fault.add",
        rule.name,
        lambda: control.add_rule(rule),
        check=lambda: control.check_standing(rule),
        before={"faults": control.mode_in_words()},
        after={"rule": words.line_of(rule)},
    )


async def remove(turn: Turn) -> Answer:
    """``fault rm``."""
    control, name = turn.control, turn.values["name"]
    return await turn.change(
        "fault.remove",
        shown(name),
        lambda: control.remove_rule(name),
        check=lambda: control.find_rule(name),
        before={"faults": control.mode_in_words()},
    )


async def clear(turn: Turn) -> Answer:
    """``fault clear``."""
    control = turn.control
    return await turn.change(
        "fault.clear",
        "all",
        control.clear_all,
        before={"faults": control.mode_in_words()},
        after={"faults": words.NO_ERROR},
    )


def breakers(turn: Turn) -> Answer:
    """``breaker show``."""
    return turn.control.show_breakers(colour=turn.colour)


async def trip(turn: Turn) -> Answer:
    """``breaker trip``."""
    return await _switch(turn, "trip", "open")


async def reset(turn: Turn) -> Answer:
    """``breaker reset``."""
    return await _switch(turn, "reset", "closed")


async def _switch(turn: Turn, verb: str, state: str) -> Answer:
    control, name = turn.control, turn.values["name"]
    breaker = control.breakers.find(name)
    return await turn.change(
        f"breaker.{verb}",
        shown(name),
        lambda: control.trip_breaker(name) if verb == "trip" else control.reset_breaker(name),
        check=lambda: control.find_breaker(name),
        before=None if breaker is None else {"state": breaker.state},
        after={"state": state},
    )
