"""All verbs of the operator's language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxyd.faults.language import STANDING, parse, parse_standing
from llmproxyd.faults.limitlines import parse_limit
from llmproxyd.faults.rules import Breakage
from llmproxyd.language.access import ACCESS
from llmproxyd.language.grammar import Argument, Option, Table, Verb
from llmproxyd.language.kinds import Choice, Count, Filtering, Free
from llmproxyd.language.scenarios import SCENARIOS

FAULTS = "Faults"
WATCHING = "What goes on"
UPSTREAMS = "Upstreams"
DAEMON = "The daemon"
CONSOLE = "The console"

LEVELS = ("debug", "info", "warn", "error", "critical")
MOST_REQUESTS = 1000
"""Requests that are listed at once at most."""

_FAULT = "[HOW OFTEN] [OPTION=VALUE …]"
_HOW_MANY = Argument("N", Count(1, MOST_REQUESTS), optional=True)
_FILTERS = Argument("FILTER", Filtering(), optional=True, many=True)
_UPSTREAM = Argument("NAME", Free("the name of an upstream", of="upstream"))
_BREAKER = Argument("NAME", Free("the name of a breaker: an upstream, or upstream/model", of="breaker"))
_PURGED = 'UPSTREAM and path ("openai /v1/models"), or the upstream\'s own URL'


def _letter(letter: str, about: str, *examples: str) -> Verb:
    def rest(text: str) -> Mapping[str, Any]:
        return {"command": parse(letter + text)}

    shows = {"n": "", "error": f"KIND {_FAULT}", "status=": f"NNN {_FAULT}"}.get(letter, _FAULT)
    return Verb(
        words=(letter,), about=about, section=FAULTS, rest=rest, shows=shows, examples=examples, changes=True
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
        section=FAULTS,
        rest=_limit,
        shows="rpm=N tpm=N [upstream=NAME] [model=GLOB] [key=each|all] [for=DURATION] [name=NAME]",
        examples=("limit rpm=60 upstream=openai", "limit rpm=500 tpm=30000 model=gpt-4* key=all for=10m"),
        changes=True,
    ),
    Verb(words=("limit", "list"), about="Show the limits that are set", section=FAULTS),
    Verb(
        words=("limit", "rm"),
        about="Take a limit away",
        section=FAULTS,
        arguments=(Argument("NAME", Free("the name of a limit", of="limit")),),
        examples=("limit rm limit-1",),
        changes=True,
    ),
    Verb(words=("limit", "clear"), about="Take all limits away", section=FAULTS, changes=True),
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

_FAULT_VERBS = (
    _letter("n", "No error: everything passes (standing rules stay)"),
    _letter("c", "Context length exceeded", "c", "c 4", "c 30% for=5m"),
    _letter("r", "Rate limit error", "r 3 retry_after=2", "r * upstream=openai"),
    _letter("u", "Unknown server error: 500, 503 or 529, as the provider does", "u", "u * model=gpt-4*"),
    _letter("error", "Any kind of error", "error overloaded 2", "error quota after=1"),
    *_BREAKAGES,
    Verb(
        words=("fault", "list"),
        about="Show the mode and the standing rules",
        section=FAULTS,
        default=True,
    ),
    Verb(
        words=("fault", "add"),
        about="Add a rule that stands beside the mode: " + STANDING,
        section=FAULTS,
        rest=_standing,
        shows=f"KIND {_FAULT} [name=NAME]",
        examples=("fault add r 30% upstream=openai for=10m", "fault add error overloaded * name=evening"),
        changes=True,
    ),
    Verb(
        words=("fault", "rm"),
        about="Take a standing rule away",
        section=FAULTS,
        arguments=(Argument("NAME", Free("the name of a rule", of="rule")),),
        examples=("fault rm evening",),
        changes=True,
    ),
    Verb(
        words=("fault", "clear"),
        about="Take the mode, the scenario, all rules and all limits away, so that nothing fails any more",
        section=FAULTS,
        changes=True,
    ),
    *_LIMIT_VERBS,
)

_WATCHING_VERBS = (
    Verb(
        words=("status",),
        about="Show the mode and the request count; with all, how everything stands",
        section=WATCHING,
        arguments=(Argument("ALL", Choice(("all",)), optional=True),),
        examples=("status", "status all", "status --json"),
    ),
    Verb(
        words=("requests",),
        about="Show the last requests that all filters let through (20, unless another number is given)",
        section=WATCHING,
        arguments=(_HOW_MANY, _FILTERS),
        examples=("requests", "requests 100 status>=500 upstream=openai"),
    ),
    Verb(
        words=("requests", "tail"),
        about="Show the last requests, then each as it ends, until the console is told to stop",
        section=WATCHING,
        arguments=(_HOW_MANY, _FILTERS),
        examples=("requests tail", "requests tail 5 duration>2s"),
    ),
    Verb(
        words=("explain",),
        about="Tell all that is known of one request: faults, cache, every attempt, breaker, times",
        section=WATCHING,
        arguments=(Argument("ID", Free("the id of a request, ours or the upstream's")),),
        examples=("explain req_0123456789abcdef",),
    ),
    Verb(
        words=("verdicts",),
        about="Show what clients did wrong after a failure, with the requests that prove it",
        section=WATCHING,
        options=(
            Option("--test", "only of requests of this test", Free("the name of a test"), "TEST"),
            Option("--over", "also what there would be to say if no client came back any more"),
        ),
        examples=("verdicts", "verdicts --over --json"),
    ),
    Verb(
        words=("verdicts", "clear"),
        about="Forget the verdicts, and what the next ones would rest on",
        section=WATCHING,
        changes=True,
    ),
    Verb(words=("connections",), about="Show the connections of clients", section=WATCHING),
    Verb(words=("cache", "stats"), about="Show what the cache holds", section=WATCHING, default=True),
    Verb(
        words=("cache", "purge"),
        about="Forget what the cache holds",
        section=WATCHING,
        options=(
            Option("--url", "one URL", Free(_PURGED), "URL"),
            Option("--prefix", "all whose URL starts so", Free(_PURGED), "URL"),
            Option("--project", "all of a project", Free("id or name of a project", of="project"), "PROJECT"),
            Option("--all", "everything"),
        ),
        single=True,
        examples=("cache purge --url 'openai /v1/models'", "cache purge --all"),
        changes=True,
    ),
)

_UPSTREAM_VERBS = (
    Verb(words=("upstream", "list"), about="Show the upstreams", section=UPSTREAMS, default=True),
    Verb(
        words=("upstream", "drain"),
        about="Send no further request to an upstream; those under way end by themselves",
        section=UPSTREAMS,
        arguments=(_UPSTREAM,),
        examples=("upstream drain my-vllm",),
        changes=True,
    ),
    Verb(
        words=("upstream", "enable"),
        about="Send requests to an upstream again",
        section=UPSTREAMS,
        arguments=(_UPSTREAM,),
        examples=("upstream enable my-vllm",),
        changes=True,
    ),
    Verb(words=("breaker", "show"), about="Show the circuit breakers", section=UPSTREAMS, default=True),
    Verb(
        words=("breaker", "trip"),
        about="Open a breaker, so that its upstream is not asked for a while",
        section=UPSTREAMS,
        arguments=(_BREAKER,),
        examples=("breaker trip openai",),
        changes=True,
    ),
    Verb(
        words=("breaker", "reset"),
        about="Close a breaker, and forget what it has counted",
        section=UPSTREAMS,
        arguments=(_BREAKER,),
        examples=("breaker reset openai",),
        changes=True,
    ),
    Verb(
        words=("test",),
        about="Make one cheap call to an upstream, and say what came of it",
        section=UPSTREAMS,
        arguments=(Argument("UPSTREAM", Free("the name of an upstream", of="upstream")),),
        examples=("test openai",),
    ),
)

_DAEMON_VERBS = (
    Verb(
        words=("config", "show"),
        about="Show the configuration in force, secrets redacted",
        section=DAEMON,
        default=True,
    ),
    Verb(
        words=("config", "check"),
        about="Read the configuration again, and report what is wrong",
        section=DAEMON,
    ),
    Verb(words=("config", "diff"), about="Show what a reload would change", section=DAEMON),
    Verb(
        words=("config", "reload"),
        about="Go by the configuration as it is now; on any mistake nothing changes",
        section=DAEMON,
        changes=True,
    ),
    Verb(
        words=("log", "level"),
        about="Set how much a part of the daemon logs, until it is restarted",
        section=DAEMON,
        arguments=(
            Argument("NAMESPACE", Free("a namespace of the log, such as llmproxyd", of="namespace")),
            Argument("LEVEL", Choice(LEVELS)),
        ),
        examples=("log level llmproxyd debug",),
        changes=True,
    ),
    Verb(words=("version",), about="Show the versions of the daemon and of what it runs on", section=DAEMON),
    Verb(
        words=("shutdown",),
        about="Stop the daemon once running requests have ended; asks at a terminal",
        section=DAEMON,
        changes=True,
    ),
)

_HELP = Verb(
    words=("help",),
    about="Show the commands; with all, every verb; or one of them",
    section=CONSOLE,
    arguments=(Argument("VERB", Free('a verb, or "all"', of="verb"), optional=True, many=True),),
    examples=("help", "help all", "help upstream drain"),
)
_QUIT = "Leave this console (at the daemon's own standard input: stop the daemon)"

_CONSOLE_VERBS = (
    _HELP,
    Verb(words=("?",), about=_HELP.about, section=CONSOLE, arguments=_HELP.arguments, hidden=True),
    Verb(
        words=("python",),
        about="Open a Python interpreter in the daemon (operator.python); Ctrl-D returns",
        section=CONSOLE,
        changes=True,
    ),
    Verb(words=("quit",), about=_QUIT, section=CONSOLE, changes=True),
    Verb(words=("q",), about=_QUIT, section=CONSOLE, changes=True),
)

TABLE = Table(
    (
        *_FAULT_VERBS,
        *SCENARIOS,
        *_WATCHING_VERBS,
        *_UPSTREAM_VERBS,
        *ACCESS,
        *_DAEMON_VERBS,
        *_CONSOLE_VERBS,
    )
)
"""The language."""
