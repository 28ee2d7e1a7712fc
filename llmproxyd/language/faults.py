"""The verbs that rehearse failure: errors, breakages, standing rules, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxyd.faults.language import STANDING, parse, parse_standing
from llmproxyd.faults.limitlines import parse_limit
from llmproxyd.faults.rules import Breakage
from llmproxyd.language.grammar import Argument, Verb
from llmproxyd.language.kinds import Free

SECTION = "Faults"

_FAULT = "[HOW OFTEN] [OPTION=VALUE …]"


def _letter(letter: str, about: str, *examples: str) -> Verb:
    def rest(text: str) -> Mapping[str, Any]:
        return {"command": parse(letter + text)}

    shows = {"n": "", "error": f"KIND {_FAULT}", "status=": f"NNN {_FAULT}"}.get(letter, _FAULT)
    return Verb(
        words=(letter,), about=about, section=SECTION, rest=rest, shows=shows, examples=examples, changes=True
    )


def _breakage(kind: Breakage, about: str, *examples: str) -> Verb:
    return _letter("status=" if kind is Breakage.STATUS else kind.value, about, *examples)


def _standing(text: str) -> Mapping[str, Any]:
    name, rule = parse_standing(text)
    return {"name": name, "rule": rule}


def _limit(text: str) -> Mapping[str, Any]:
    name, limit = parse_limit(text)
    return {"name": name, "limit": limit}


_LIMIT_VERBS = (
    Verb(
        words=("limit",),
        about="Answer as the provider does over its rate limit: rpm= requests and tpm= tokens a minute, "
        "for each key that clients present or for all together; upstream=, model=, path=, stream= narrow it",
        section=SECTION,
        rest=_limit,
        shows="rpm=N tpm=N [upstream=NAME] [model=GLOB] [key=each|all] [for=DURATION] [name=NAME]",
        examples=("limit rpm=60 upstream=openai", "limit rpm=500 tpm=30000 model=gpt-4* key=all for=10m"),
        changes=True,
    ),
    Verb(words=("limit", "list"), about="Show the limits that are set", section=SECTION),
    Verb(
        words=("limit", "rm"),
        about="Take a limit away",
        section=SECTION,
        arguments=(Argument("NAME", Free("the name of a limit", of="limit")),),
        examples=("limit rm limit-1",),
        changes=True,
    ),
    Verb(words=("limit", "clear"), about="Take all limits away", section=SECTION, changes=True),
)

_BREAKAGES = (
    _breakage(
        Breakage.CUT,
        "Close the connection in the middle of the answer",
        "cut 3 at=5 upstream=openai",
        "cut at=tool place=upstream",
    ),
    _breakage(Breakage.RESET, "The same by a TCP reset", "reset at=1000B"),
    _breakage(
        Breakage.STALL,
        "Be silent in the middle of the answer, for= so long or for good, then go on; ttl= ends the rule",
        "stall for=30s at=tool",
        "stall * for=5s ttl=10m",
    ),
    _breakage(
        Breakage.STREAM_ERROR,
        "End the stream with the provider's own error event",
        "stream_error error=overloaded at=2",
    ),
    _breakage(Breakage.GARBAGE, "Send an event whose JSON is broken, then go on", "garbage at=2"),
    _breakage(
        Breakage.TRUNCATE,
        "End the answer cleanly, without what closes a complete stream",
        "truncate at=50%bytes",
        "truncate at=end",
    ),
    _breakage(Breakage.DUPLICATE, "Send an event twice", "duplicate at=1"),
    _breakage(Breakage.REORDER, "Send an event after the one that should follow it", "reorder at=1"),
    _breakage(Breakage.NO_USAGE, "Leave the counts of tokens out", "no_usage *"),
    _breakage(Breakage.EMPTY, "Answer with a stream without content", "empty 3"),
    _breakage(
        Breakage.WRONG_LENGTH,
        "Tell a Content-Length that is too large by so many bytes, or too small by -N",
        "wrong_length length=-20",
    ),
    _breakage(
        Breakage.SLOW,
        "Send everything, at a pace",
        "slow * per_event=200ms jitter=20%",
        "slow tokens_per_second=20 first_token=2s",
    ),
    _breakage(Breakage.DELAY, "Send the answer's head so much later; ttl= ends the rule", "delay for=3s"),
    _breakage(Breakage.REFUSE, "Close the connection without an answer", "refuse 2"),
    _breakage(Breakage.NEVER, "Take the request, and never answer", "never"),
    _breakage(
        Breakage.STATUS,
        "Answer with any status, and with a file beside the configuration file as the body",
        "status=503 body=page.html",
        "status=418 3",
    ),
)

MODES = (
    _letter("n", "No error: everything passes (standing rules stay)"),
    _letter("c", "Context length exceeded", "c", "c 4", "c 30% for=5m"),
    _letter("r", "Rate limit error", "r 3 retry_after=2", "r * upstream=openai"),
    _letter("u", "Unknown server error: 500, 503 or 529, as the provider does", "u", "u * model=gpt-4*"),
    _letter("error", "Any kind of error", "error overloaded 2", "error quota after=1"),
    *_BREAKAGES,
)
"""The verbs that set the mode."""

FAULTS = (
    *MODES,
    Verb(
        words=("fault", "list"),
        about="Show the mode and the standing rules",
        section=SECTION,
        default=True,
    ),
    Verb(
        words=("fault", "add"),
        about="Add a rule that stands beside the mode: " + STANDING,
        section=SECTION,
        rest=_standing,
        shows=f"KIND {_FAULT} [name=NAME]",
        examples=("fault add r 30% upstream=openai for=10m", "fault add error overloaded * name=evening"),
        changes=True,
    ),
    Verb(
        words=("fault", "rm"),
        about="Take a standing rule away",
        section=SECTION,
        arguments=(Argument("NAME", Free("the name of a rule", of="rule")),),
        examples=("fault rm evening",),
        changes=True,
    ),
    Verb(
        words=("fault", "clear"),
        about="Take the mode, the scenario, all rules and all limits away, so that nothing fails any more",
        section=SECTION,
        changes=True,
    ),
    *_LIMIT_VERBS,
)
