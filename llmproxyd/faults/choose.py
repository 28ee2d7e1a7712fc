"""Which request gets which fault.  Deciding and counting are one step.

The engine is not thread-safe and need not be: it is asked on the reactor's thread, and
:meth:`Engine.choose` returns with the fault already spent, so ``c 100`` under any number of
connections gives 100.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from llmproxyd.faults.limits import Limits, Ticket
from llmproxyd.faults.rules import Always, Rule, Share, Side, Subject, Times
from llmproxyd.faults.scenario import Play


@dataclass(slots=True)
class Running:
    """A rule at work, with what of it is left.

    :param passing: eligible requests that are still let through (``after=``).
    :param remaining: how often it still fires, ``None`` for a share or every request.
    :param ends: monotonic seconds at which it is off, ``None`` for no end.
    """

    rule: Rule
    passing: int
    remaining: int | None
    ends: float | None
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Chosen:
    """The fault for one request, already spent.

    :param number: which hit of its rule it is, from 1.
    :param draw: a number in [0, 1), for its jitter; ``None`` leaves it to :meth:`Engine.draw`.
    """

    rule: Rule
    number: int
    draw: Callable[[], float] | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the faults of one run.

    :param injected: answers that were errors of ours.
    :param never: counted errors that are still waiting, or whose time was over before.
    :param idle: rules without a count that were never hit, by name.
    """

    injected: int
    never: int
    idle: tuple[str, ...]


class Engine:
    """The operator's mode and standing rules, the scenario, the rules of the file: tried in this order.

    :param monotonic: seconds, for ``for=``.
    :param random: draws the shares, and the jitter of what is slow.
    :param ended: called when the mode or a rule of the operator's has run out, with why in words.
    :ivar play: the scenario at work.
    :ivar limits: the rate limits at work.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        random: Random,
        rules: Iterable[Rule] = (),
        ended: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._monotonic = monotonic
        self._random = random
        self._mode: Running | None = None
        self._standing: list[Running] = []
        self._rules = [self._start(rule) for rule in rules]
        self._ended = ended
        self.play: Play | None = None
        self.limits = Limits(monotonic)
        self._injected = 0
        self._missed = 0
        self._missed_rules: list[str] = []

    def _start(self, rule: Rule) -> Running:
        return Running(
            rule,
            passing=rule.after,
            remaining=rule.when.count if isinstance(rule.when, Times) else None,
            ends=None if rule.lasts is None else self._monotonic() + rule.lasts,
        )

    @property
    def mode(self) -> Running | None:
        """The operator's mode, ``None`` when everything passes."""
        self._expire()
        return self._mode

    @property
    def rules(self) -> tuple[Running, ...]:
        """The rules that can still fire: the operator's, then the file's."""
        self._expire()
        return (*self._standing, *self._rules)

    @property
    def standing(self) -> tuple[Running, ...]:
        """Those of the operator's."""
        self._expire()
        return tuple(self._standing)

    @property
    def active(self) -> bool:
        """Whether any rule can fire, or a limit is set: when not, nothing need be looked at."""
        if self._mode is not None or self._rules or self._standing or self.limits.working:
            return True
        return self.play is not None and not self.play.over

    @property
    def acts_upstream(self) -> bool:
        """Whether anything can happen within attempts."""
        if not self.active:
            return False
        if self.play is not None and self.play.scenario.side is Side.UPSTREAM:
            return True
        return any(running.rule.side is Side.UPSTREAM for running in self._running())

    @property
    def reads_body(self) -> bool:
        """Whether a rule or a limit at work asks for the model or the wish for a stream."""
        if self.limits.reads_body:
            return True
        if self.play is not None and self.play.scenario.reads_body:
            return True
        return any(running.rule.match.reads_body for running in self._running())

    def set_mode(self, rule: Rule | None) -> None:
        """Make *rule* the operator's mode; ``None`` lets everything pass."""
        self._mode = None if rule is None else self._start(rule)

    def preview(self, rule: Rule) -> Running:
        """*rule* as it would be at work, without any effect."""
        return self._start(rule)

    def add_rule(self, rule: Rule) -> None:
        """Have *rule* stand beside the mode; its name is not taken yet."""
        self._standing.append(self._start(rule))

    def remove_rule(self, name: str) -> bool:
        """Take the rule of this name away, the operator's or the file's; whether there was one."""
        for rules in (self._standing, self._rules):
            for running in rules:
                if running.rule.name == name:
                    rules.remove(running)
                    return True
        return False

    def clear(self) -> None:
        """Take the mode, the scenario, all rules and all limits away."""
        self._mode = self.play = None
        self._standing.clear()
        self._rules.clear()
        self.limits.clear()

    def replace_rules(self, rules: Iterable[Rule]) -> None:
        """Go by *rules* instead of the file's; one that is the same goes on counting."""
        known = {running.rule: running for running in self._rules}
        self._rules = [known.get(rule) or self._start(rule) for rule in rules]

    def choose(self, subject: Subject, side: Side = Side.CLIENT) -> Chosen | None:
        """The fault for *subject* on this *side*, counted as spent; ``None`` when it passes."""
        self._expire()
        for running in self._of_operator():
            if running.rule.side is side and running.rule.match.matches(subject) and self._fires(running):
                return self._spend(running)
        if self.play is not None and self.play.scenario.side is side:
            rule = self.play.next(subject)
            if rule is None:
                return None
            self._injected += 1
            return Chosen(rule, 1, self.play.random().random if rule.manner.jitter else None)
        for running in self._rules:
            if running.rule.side is side and running.rule.match.matches(subject) and self._fires(running):
                return self._spend(running)
        return None

    def limited(self, subject: Subject, key: str, estimate: int) -> Ticket | None:
        """How the limits take it that *subject* comes, charged at once; ``None`` where none is for it.

        :param key: who asks; it is no secret.
        :param estimate: of tokens.
        """
        self._expire()
        return self.limits.ask(subject, key, estimate)

    def reseed(self, seed: int) -> None:
        """Draw shares from here on as every run with *seed* does."""
        self._random.seed(seed)

    def when_mode_ends(self, ended: Callable[[str], None]) -> None:
        """Call *ended* with the cause whenever the mode or a standing rule has run out."""
        self._ended = ended

    def spend(self, rule: Rule) -> Chosen:
        """A fault that the request itself asked for."""
        self._injected += 1
        return Chosen(rule, 1)

    def missed(self, chosen: Chosen) -> None:
        """*chosen* was spent, and its answer ended before the spot was reached."""
        self._injected -= 1
        self._missed += 1

    def draw(self) -> float:
        """A number in [0, 1), for the jitter of what is slow."""
        return self._random.random()

    def tally(self) -> Tally:
        """What became of everything so far."""
        running = list(self._running())
        return Tally(
            injected=self._injected,
            never=self._missed
            + sum(one.remaining or 0 for one in running)
            + (0 if self.play is None else self.play.never),
            idle=(*self._missed_rules, *(one.rule.name for one in running if _idle(one))),
        )

    def _running(self) -> Iterable[Running]:
        yield from self._of_operator()
        yield from self._rules

    def _of_operator(self) -> Iterable[Running]:
        if self._mode is not None:
            yield self._mode
        yield from self._standing

    def _fires(self, running: Running) -> bool:
        if running.passing:
            running.passing -= 1
            return False
        when = running.rule.when
        if isinstance(when, Share):
            return self._random.random() < when.fraction
        return isinstance(when, Always) or bool(running.remaining)

    def _spend(self, running: Running) -> Chosen:
        running.hits += 1
        self._injected += 1
        chosen = Chosen(running.rule, running.hits)
        if running.remaining is not None:
            running.remaining -= 1
            if not running.remaining:
                self._drop(running, "its count is used up")
                return chosen
        if running.rule.most is not None and running.hits >= running.rule.most:
            self._drop(running, "it has hit as often as it may")
        return chosen

    def _expire(self) -> None:
        if not self.active:
            return
        now = self._monotonic()
        over = [one for one in self._running() if one.ends is not None and one.ends <= now]
        for running in over:
            self._missed += running.remaining or 0
            if _idle(running):
                self._missed_rules.append(running.rule.name)
        # All are off before anybody is told: whoever is told asks what is still at work.
        told = [self._take_off(running) for running in over]
        if self.limits.expire(now) or any(told):
            self._ended("its time is over")

    def _drop(self, running: Running, cause: str) -> None:
        if self._take_off(running):
            self._ended(cause)

    def _take_off(self, running: Running) -> bool:
        """Have it fire no more; whether the operator set it, and is told."""
        if running is self._mode:
            self._mode = None
            return True
        for rules in (self._standing, self._rules):
            # By identity: two rules may be equal.
            for index, one in enumerate(rules):
                if one is running:
                    del rules[index]
                    return rules is self._standing
        return False


def _idle(running: Running) -> bool:
    """Whether *running* has no count and never hit."""
    return running.remaining is None and not running.hits
