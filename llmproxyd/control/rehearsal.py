"""Faults as an operator has them: the mode, standing rules, the seed, and all of it in words."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llmproxyd.control.answers import Answer
from llmproxyd.control.commanded import completed, told_limit
from llmproxyd.control.names import Names
from llmproxyd.control.tables import GREEN, YELLOW, paint
from llmproxyd.faults import words
from llmproxyd.faults.choose import Engine, Running
from llmproxyd.faults.language import LanguageError, shown
from llmproxyd.faults.limitlines import describe_limit
from llmproxyd.faults.limits import Working
from llmproxyd.faults.progress import brief, progress
from llmproxyd.faults.rules import Rule, Share
from llmproxyd.faults.scenario import Play
from llmproxyd.model import Event, FaultsChanged

RULE = "=" * 60

MOST_RULES = 100
"""Rules that an operator may have standing."""


class Rehearsal:
    """The faults of one engine.

    :param upstreams: the names that ``upstream=`` may have.
    :param handled: how many requests were handled so far.
    :param draw_seed: makes a seed when a share is set and none was configured.
    :param seed: the configured seed, if any.
    :param allowed: whether faults may be set here (``operator.faults``).
    :param symbols: whether the readers' terminal shows more than ASCII.
    :param folder: where the files are that ``body=`` may name; ``None`` where none may be read.
    :param forget_after: seconds after which a fault ends that was set without an end; ``None`` is never.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        emit: Callable[[Event], None],
        monotonic: Callable[[], float],
        upstreams: Collection[str],
        handled: Callable[[], int],
        draw_seed: Callable[[], int],
        seed: int | None = None,
        allowed: bool = True,
        symbols: bool = True,
        folder: Path | None = None,
        forget_after: float | None = None,
    ) -> None:
        self.engine = engine
        self.folder = folder
        self.forget_after = forget_after
        self.monotonic = monotonic
        self.upstreams = Names(upstreams)
        self._emit = emit
        self._handled = handled
        self._draw_seed = draw_seed
        self._allowed = allowed
        self._symbols = symbols
        self.seed = seed
        engine.when_mode_ends(self._ended)
        if seed is not None:
            engine.reseed(seed)

    # The mode.

    def commanded(self, rule: Rule) -> Rule:
        """*rule* as it is set when an operator says so: with its body, and an end lest it be forgotten.

        :raises LanguageError: the body cannot be read.
        """
        rule = completed(rule, self.folder)
        return replace(rule, lasts=self.forget_after) if rule.lasts is None else rule

    def set_fault(self, rule: Rule) -> Answer:
        """Make *rule* the operator's mode.

        :raises LanguageError: see :meth:`check`.
        """
        self.check(rule)
        self.engine.set_mode(rule)
        return self._set(rule)

    def clear_fault(self, note: str = "") -> Answer:
        """Pass everything through (standing rules stay as they are)."""
        had = self.engine.mode is not None
        self.engine.set_mode(None)
        if had:
            self._changed()
        notes = [note] if note else []
        if self.engine.standing:
            notes.append("Standing rules are still active; fault clear takes them away.")
        elif self.engine.rules:
            notes.append("The rules of the configuration file are still active.")
        if self.playing() is not None:
            notes.append("The scenario is still active; scenario stop ends it.")
        if self.engine.limits.working:
            notes.append("Limits are still active; limit clear takes them away.")
        return self._shown(notes)

    def check(self, rule: Rule) -> None:
        """Refuse a *rule* that cannot be meant.

        :raises LanguageError: faults are off here, or it names an upstream that is not there.
        """
        self.check_allowed()
        if rule.match.upstream is not None:
            self.check_upstream(rule.match.upstream)

    def check_allowed(self) -> None:
        """Refuse to change what fails where that is not to be.

        :raises LanguageError: faults are off here.
        """
        if not self._allowed:
            raise LanguageError("faults may not be set here (operator.faults: true allows them)")

    def check_upstream(self, name: str) -> None:
        """Refuse the *name* of an upstream that is not there.

        :raises LanguageError: with those that are.
        """
        if name not in self.upstreams:
            near = get_close_matches(name, self.upstreams, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            known = ", ".join(self.upstreams)
            raise LanguageError(f'there is no upstream "{shown(name)}"{hint} (known: {known})')

    # Standing rules.

    def named(self, rule: Rule, name: str | None) -> Rule:
        """*rule* under *name*, or under the first of ``rule-1``, ``rule-2`` … that is free."""
        taken = {one.rule.name for one in self.engine.rules}
        free = (f"rule-{number}" for number in range(1, len(taken) + 2))
        return replace(rule, name=name or next(one for one in free if one not in taken))

    def check_standing(self, rule: Rule) -> None:
        """Refuse a *rule* that cannot stand beside the mode.

        :raises LanguageError: see :meth:`check`; or its name is taken, or there are too many.
        """
        self.check(rule)
        if rule.name == "mode" or any(one.rule.name == rule.name for one in self.engine.rules):
            raise LanguageError(f'the name "{shown(rule.name)}" is taken; fault list shows all')
        if len(self.engine.standing) >= MOST_RULES:
            raise LanguageError(f"{MOST_RULES} rules stand already; fault rm takes one away")

    def add_rule(self, rule: Rule) -> Answer:
        """Have *rule* stand beside the mode.

        :raises LanguageError: see :meth:`check_standing`.
        """
        self.check_standing(rule)
        self.engine.add_rule(rule)
        return self._set(rule)

    def find_rule(self, name: str) -> Running:
        """The standing rule of this name, the operator's or the file's.

        :raises LanguageError: there is none.
        """
        for one in self.engine.rules:
            if one.rule.name == name:
                return one
        known = [one.rule.name for one in self.engine.rules]
        near = get_close_matches(name, known, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise LanguageError(
            f'there is no rule "{shown(name)}"{hint} (known: {", ".join(map(shown, known)) or "none"})'
        )

    def remove_rule(self, name: str) -> Answer:
        """Take the standing rule of this name away; one of the file is back with the next start or reload.

        :raises LanguageError: there is none.
        """
        self.find_rule(name)
        self.engine.remove_rule(name)
        self._changed()
        return self._shown([])

    def clear_all(self) -> Answer:
        """Take the mode, the scenario, all rules and all limits away."""
        had = self.active()
        self.engine.clear()
        if had:
            self._changed()
        return self._shown([])

    # In words and as data.

    def status(self, *, colour: bool = False) -> Answer:
        """The mode, the rules and the request count."""
        return self._shown([], colour=colour)

    def ensure_seed(self) -> str | None:
        """Seed the shares once; what to tell about it, ``None`` when a seed was set before."""
        if self.seed is not None:
            return None
        self.seed = self._draw_seed()
        self.engine.reseed(self.seed)
        return f"Shares are drawn with seed {self.seed}; faults.seed: {self.seed} repeats this run."

    def running(self) -> list[Running]:
        """The mode and the rules at work, in the order in which they are tried."""
        mode = self.engine.mode
        return [*([] if mode is None else [mode]), *self.engine.rules]

    def playing(self) -> Play | None:
        """The scenario at work, unless it is through."""
        play = self.engine.play
        return None if play is None or play.over else play

    def scenario_changed(self, cause: str | None = None) -> None:
        """Tell that another scenario is at work, or none.

        :param cause: why, where nobody commanded it.
        """
        if cause is None:
            self._changed()
        else:
            self._ended(cause)

    def limits(self) -> list[Working]:
        """The limits at work."""
        self.running()  # those whose time is over are gone then
        return list(self.engine.limits.working)

    def limits_changed(self) -> None:
        """Tell that other limits are at work, or none."""
        self._changed()

    def active(self) -> bool:
        """Whether any fault can still hit a request, or a limit holds."""
        return bool(self.running()) or self.playing() is not None or bool(self.engine.limits.working)

    def mode_in_words(self) -> str:
        """The operator's mode and the rules at work, in one line."""
        return self._in_words(self.running())

    def in_words_with(self, rule: Rule | None) -> str:
        """The same, were *rule* the mode."""
        rules = self.engine.rules
        return self._in_words([*([] if rule is None else [self.engine.preview(rule)]), *rules])

    def faults(self) -> dict[str, Any]:
        """The operator's mode and the rules that can still fire, as JSON takes it."""
        mode = self.engine.mode
        return {
            "active": self.active(),
            "words": self.mode_in_words(),
            "mode": None if mode is None else self._told(mode),
            "scenario": None if (play := self.playing()) is None else progress(play),
            "rules": [self._told(one) for one in self.engine.rules],
            "limits": [told_limit(one, self.monotonic()) for one in self.limits()],
            "seed": self.seed,
        }

    def prompt(self) -> str:
        """The prompt, with an active fault in it."""
        told = [words.prompt_words(self.engine.mode, self.engine.rules)]
        if (play := self.playing()) is not None:
            told.append(brief(play))
        if names := [one.limit.name for one in self.limits()]:
            told.append(f"limits: {', '.join(names)}")
        active = "; ".join(filter(None, told))
        return f"[{active}] Enter command: " if active else "Enter command: "

    def _told(self, one: Running) -> dict[str, Any]:
        rule, now = one.rule, self.monotonic()
        return {
            "name": rule.name,
            "error": str(rule.kind),
            "words": words.describe(one, now),
            "remaining": one.remaining,
            "passing": one.passing,
            "hits": one.hits,
            "ends_in": None if one.ends is None else round(max(0.0, one.ends - now), 3),
        }

    def _limits_in_words(self) -> list[str]:
        now = self.monotonic()
        return [f"Limit {one.limit.name}: {describe_limit(one, now)}" for one in self.limits()]

    def _in_words(self, running: list[Running]) -> str:
        now = self.monotonic()
        told = [words.describe(one, now) for one in running]
        if (play := self.playing()) is not None:
            told.append(progress(play))
        told += self._limits_in_words()
        return "; ".join(told) or words.NO_ERROR

    def _set(self, rule: Rule) -> Answer:
        """Tell that *rule* was set, and what is to be known about it."""
        notes = []
        if isinstance(rule.when, Share) and (note := self.ensure_seed()):
            notes.append(note)
        if note := words.retry_note(rule):
            notes.append(note)
        self._changed()
        return self._shown(notes)

    def _shown(self, notes: list[str], *, colour: bool = False) -> Answer:
        mode = self.engine.mode
        now = self.monotonic()
        text = words.NO_ERROR if mode is None else words.describe(mode, now)
        text = paint(text, GREEN if mode is None else YELLOW, colour)
        sign = words.symbol(None if mode is None else mode.rule.kind) + " " if self._symbols else ""
        lines = [RULE, f"Current mode: {sign}{text}"]
        lines += [f"Rule {one.rule.name}: {words.describe(one, now)}" for one in self.engine.rules]
        if (play := self.playing()) is not None:
            lines.append(progress(play))
        lines += self._limits_in_words()
        lines += [f"Requests handled: {self._handled()}", RULE, *notes]
        return Answer("\n".join(lines) + "\n", data=self.faults())

    def _changed(self) -> None:
        self._emit(FaultsChanged(self.mode_in_words(), "by command", commanded=True))

    def _ended(self, cause: str) -> None:
        self._emit(FaultsChanged(self.mode_in_words(), cause, commanded=False))
