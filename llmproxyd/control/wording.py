"""What consoles are told: help on everything and on single verbs, and breakers in words."""

from __future__ import annotations

from llmproxyd.faults.language import KINDS, MODIFIER_HELP, OPTIONS, VERBS
from llmproxyd.language.grammar import Verb
from llmproxyd.language.table import TABLE
from llmproxyd.resilience.breaker import Snapshot
from llmproxyd.units import format_duration


def breaker_in_words(one: Snapshot) -> str:
    """``open, next probe in 12 s, opened 3 times``."""
    parts: list[str] = [one.state]
    if one.state == "open":
        parts.append(
            f"next probe in {format_duration(-int(-one.left // 1))}" if one.left else "a probe may pass"
        )
    elif one.state == "half-open":
        parts.append(f"{one.probes} probe{'' if one.probes == 1 else 's'} under way")
    elif one.window_calls is not None:
        parts.append(f"{one.window_failures} of {one.window_calls} failed")
    elif one.failures:
        parts.append(f"{one.failures} failure{'' if one.failures == 1 else 's'} in a row")
    if one.opened:
        parts.append("opened once" if one.opened == 1 else f"opened {one.opened} times")
    return ", ".join(parts)


HELP = f"""\
Commands:
  n              No error (pass through), until another command
  c              Context length exceeded (1 time)
  c 4            … 4 times in a row
  c 0.3, c 30%   … on 30 % of requests
  c *            … on every request
  r              Rate limit error, same modifiers as c
  u              Unknown server error (500, 503 or 529, as the provider does)
  error KIND     {", ".join(KINDS[:6])},
                 {", ".join(KINDS[6:])}
  cut at=3 …     What breaks on the wire: {", ".join(VERBS[:8])},
                 {", ".join(VERBS[8:])}, status=NNN
  limit rpm=60   A rate limit of the provider's own kind; limit list, limit rm NAME, limit clear
  breaker        Show the circuit breakers; breaker trip NAME, breaker reset NAME
  status         Show the mode and the request count
  help           Show this
  q              Quit
Modifiers: {MODIFIER_HELP}
Options, after the modifier: {", ".join(f"{name}=" for name in OPTIONS)}
  r 3 retry_after=2        the answer says to come back in 2 seconds
  c after=1                let one request pass, then fail the next
  u * for=5m model=gpt-4*  every request for such a model, for five minutes
More verbs: fault, scenario, verdicts, requests, explain, connections, cache, upstream, test, project, token,
  usage, config, log, version, shutdown; help VERB explains one, help all lists all.
  --json ends any line.
"""


def help_of(verb: Verb) -> str:
    """How *verb* is written, and what it does."""
    lines = [verb.usage, f"  {verb.about}"]
    width = max((len(_long(one.name, one.shows)) for one in verb.options), default=0)
    lines += [f"  {_long(one.name, one.shows):<{width}}  {one.about}" for one in verb.options]
    lines += [f"  for example: {one}" for one in verb.examples]
    return "\n".join(lines) + "\n"


def _long(name: str, shows: str) -> str:
    return f"{name} {shows}".rstrip()


def help_on_all() -> str:
    """Each verb on a line, below the title of its section."""
    lines: list[str] = []
    width = 24
    section = ""
    for one in TABLE.verbs:
        if one.hidden:
            continue
        if one.section != section:
            section = one.section
            lines.append(f"{section}:")
        usage = " ".join([one.name, *(argument.usage for argument in one.arguments)])
        lines.append(f"  {usage:<{width}}  {one.about}")
    return "\n".join(lines) + "\n"
