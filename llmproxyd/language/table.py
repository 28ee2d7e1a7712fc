"""All verbs of the operator's language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxyd.faults.language import STANDING, parse, parse_standing
from llmproxyd.language.access import ACCESS
from llmproxyd.language.grammar import Argument, Option, Table, Verb
from llmproxyd.language.kinds import Choice, Count, Filtering, Free

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

    shows = {"n": "", "error": f"KIND {_FAULT}"}.get(letter, _FAULT)
    return Verb(
        words=(letter,), about=about, section=FAULTS, rest=rest, shows=shows, examples=examples, changes=True
    )


def _standing(text: str) -> Mapping[str, Any]:
    name, rule = parse_standing(text)
    return {"name": name, "rule": rule}


_FAULT_VERBS = (
    _letter("n", "No error: everything passes (standing rules stay)"),
    _letter("c", "Context length exceeded", "c", "c 4", "c 30% for=5m"),
    _letter("r", "Rate limit error", "r 3 retry_after=2", "r * upstream=openai"),
    _letter("u", "Unknown server error: 500, 503 or 529, as the provider does", "u", "u * model=gpt-4*"),
    _letter("error", "Any kind of error", "error overloaded 2", "error quota after=1"),
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
        about="Take all rules and the mode away, so that nothing fails any more",
        section=FAULTS,
        changes=True,
    ),
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

TABLE = Table((*_FAULT_VERBS, *_WATCHING_VERBS, *_UPSTREAM_VERBS, *ACCESS, *_DAEMON_VERBS, *_CONSOLE_VERBS))
"""The language."""
