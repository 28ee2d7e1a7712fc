"""What an operator can do: one method a verb, shared by every console.

Consoles only translate: they hand a line to :meth:`Control.run` and show what comes back.  A
command that is refused leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from llmproxyd.control.wording import HELP, breaker_in_words
from llmproxyd.faults import words
from llmproxyd.faults.choose import Engine, Running
from llmproxyd.faults.language import (
    ClearFault,
    Command,
    Help,
    LanguageError,
    Quit,
    ResetBreaker,
    SetFault,
    ShowBreakers,
    Status,
    TripBreaker,
    parse,
    shown,
)
from llmproxyd.faults.rules import Rule, Share
from llmproxyd.model import Change, Event, FaultsChanged
from llmproxyd.resilience.breaker import Breaker
from llmproxyd.resilience.breakers import Breakers

RULE = "=" * 60

ACTIONS: Mapping[type, str] = {
    SetFault: "fault.set",
    ClearFault: "fault.clear",
    TripBreaker: "breaker.trip",
    ResetBreaker: "breaker.reset",
    Quit: "daemon.stop",
}
"""What each command that changes anything is called in the audit log."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to, as text of whole lines.

    :param ok: ``False`` when it was refused and nothing has changed.
    """

    text: str
    ok: bool = True


class Control:
    """The verbs.

    :param upstreams: the names that ``upstream=`` may have.
    :param breakers: those that were needed so far.
    :param handled: how many requests were handled so far.
    :param quit: stops the daemon gracefully.
    :param draw_seed: makes a seed when a share is set and none was configured.
    :param seed: the configured seed, if any.
    :param allowed: whether faults may be set here (``operator.faults``).
    :param symbols: whether the readers' terminal shows more than ASCII.
    :param record: takes each change that was commanded, for the audit log; it must not fail.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        emit: Callable[[Event], None],
        monotonic: Callable[[], float],
        upstreams: Iterable[str],
        breakers: Breakers,
        handled: Callable[[], int],
        quit: Callable[[], None],
        draw_seed: Callable[[], int],
        seed: int | None = None,
        allowed: bool = True,
        symbols: bool = True,
        record: Callable[[Change], object] = lambda change: None,
    ) -> None:
        self._engine = engine
        self._emit = emit
        self._monotonic = monotonic
        self._upstreams = sorted(upstreams)
        self._breakers = breakers
        self._handled = handled
        self._quit = quit
        self._draw_seed = draw_seed
        self._allowed = allowed
        self._symbols = symbols
        self._record = record
        self.seed = seed
        engine.when_mode_ends(self._ended)
        if seed is not None:
            engine.reseed(seed)

    def run(self, line: str, who: str | None = "console") -> Answer:
        """Do what *line* says.

        :param who: for the audit log; ``None`` where it is on record already.
        """
        try:
            command = parse(line)
        except LanguageError as error:
            return _refusal(error)
        before = self.mode_in_words()
        try:
            answer = self._do(command)
        except LanguageError as error:
            answer = _refusal(error)
        action = ACTIONS.get(type(command))
        if action is not None and who is not None:
            self._record(
                Change(
                    who=who,
                    address="-",
                    action=action,
                    target=shown(line.strip()),
                    before={"faults": before},
                    after={"faults": self.mode_in_words()},
                    outcome="ok" if answer.ok else "refused",
                )
            )
        return answer

    def _do(self, command: Command) -> Answer:
        """Do *command*.

        :raises LanguageError: it is refused.
        """
        if isinstance(command, SetFault):
            return self.set_fault(command.rule)
        if isinstance(command, ClearFault):
            return self.clear_fault(command.note)
        if isinstance(command, TripBreaker):
            return self.trip_breaker(command.name)
        if isinstance(command, ResetBreaker):
            return self.reset_breaker(command.name)
        if isinstance(command, ShowBreakers):
            return self.show_breakers()
        if isinstance(command, Status):
            return self.status()
        if isinstance(command, Help):
            return self.help()
        return self.quit()

    def set_fault(self, rule: Rule) -> Answer:
        """Make *rule* the operator's mode.

        :raises LanguageError: faults are off here, or it names an upstream that is not there.
        """
        self.check(rule)
        notes = []
        self._engine.set_mode(rule)
        if isinstance(rule.when, Share) and (note := self.ensure_seed()):
            notes.append(note)
        if note := words.retry_note(rule):
            notes.append(note)
        self._changed()
        return self._shown(notes)

    def clear_fault(self, note: str = "") -> Answer:
        """Pass everything through (rules of the file stay as they are)."""
        had = self._engine.mode is not None
        self._engine.set_mode(None)
        if had:
            self._changed()
        notes = [note] if note else []
        if self._engine.rules:
            notes.append("The rules of the configuration file are still active.")
        return self._shown(notes)

    def status(self) -> Answer:
        """The mode, the rules and the request count."""
        return self._shown([])

    def show_breakers(self) -> Answer:
        """Every breaker that has been needed so far, with its state."""
        now = self._monotonic()
        found = [one.snapshot(now) for one in self._breakers]
        if not found:
            return Answer("No breaker yet: none is configured, or no request has come to one.\n")
        width = max(len(shown(one.name)) for one in found)
        return Answer("".join(f"{shown(one.name):<{width}}  {breaker_in_words(one)}\n" for one in found))

    def trip_breaker(self, name: str) -> Answer:
        """Open the breaker *name*.

        :raises LanguageError: there is no such breaker.
        """
        breaker = self._breaker(name)
        breaker.trip(self._monotonic())
        return self.show_breakers()

    def reset_breaker(self, name: str) -> Answer:
        """Close the breaker *name*, and forget what it has counted.

        :raises LanguageError: there is no such breaker.
        """
        self._breaker(name).reset(self._monotonic())
        return self.show_breakers()

    def _breaker(self, name: str) -> Breaker:
        breaker = self._breakers.find(name)
        if breaker is None:
            known = ", ".join(shown(one.name) for one in self._breakers) or "none so far"
            raise LanguageError(f'there is no breaker "{shown(name)}" (known: {known})')
        return breaker

    def help(self) -> Answer:
        """The commands."""
        return Answer(HELP)

    def quit(self) -> Answer:
        """Stop the daemon once running requests have ended."""
        self._quit()
        return Answer("Stopping.\n")

    def check(self, rule: Rule) -> None:
        """Refuse a *rule* that cannot be meant.

        :raises LanguageError: see :meth:`set_fault`.
        """
        if not self._allowed:
            raise LanguageError("faults may not be set here (operator.faults: true allows them)")
        name = rule.match.upstream
        if name is not None and name not in self._upstreams:
            near = get_close_matches(name, self._upstreams, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            known = ", ".join(self._upstreams)
            raise LanguageError(f'there is no upstream "{shown(name)}"{hint} (known: {known})')

    def ensure_seed(self) -> str | None:
        """Seed the shares once; what to tell about it, ``None`` when a seed was set before."""
        if self.seed is not None:
            return None
        self.seed = self._draw_seed()
        self._engine.reseed(self.seed)
        return f"Shares are drawn with seed {self.seed}; faults.seed: {self.seed} repeats this run."

    def mode_in_words(self) -> str:
        """The operator's mode and the rules at work, in one line."""
        running = self._running()
        if not running:
            return words.NO_ERROR
        now = self._monotonic()
        return "; ".join(words.describe(one, now) for one in running)

    def active(self) -> bool:
        """Whether any fault can still hit a request."""
        return bool(self._running())

    def prompt(self) -> str:
        """The prompt, with an active fault in it."""
        active = words.prompt_words(self._engine.mode, self._engine.rules)
        return f"[{active}] Enter command: " if active else "Enter command: "

    def _running(self) -> list[Running]:
        mode = self._engine.mode
        return [*([] if mode is None else [mode]), *self._engine.rules]

    def _shown(self, notes: list[str]) -> Answer:
        mode = self._engine.mode
        now = self._monotonic()
        text = words.NO_ERROR if mode is None else words.describe(mode, now)
        sign = words.symbol(None if mode is None else mode.rule.kind) + " " if self._symbols else ""
        lines = [RULE, f"Current mode: {sign}{text}"]
        lines += [f"Rule {one.rule.name}: {words.describe(one, now)}" for one in self._engine.rules]
        lines += [f"Requests handled: {self._handled()}", RULE, *notes]
        return Answer("\n".join(lines) + "\n")

    def _changed(self) -> None:
        self._emit(FaultsChanged(self.mode_in_words(), "by command", commanded=True))

    def _ended(self, cause: str) -> None:
        self._emit(FaultsChanged(self.mode_in_words(), cause, commanded=False))


def _refusal(error: LanguageError) -> Answer:
    return Answer(f"{error}\nNothing has changed. Type help for the commands.\n", ok=False)
