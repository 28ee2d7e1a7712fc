"""All verbs of the operator's language."""

from __future__ import annotations

from llmproxyd.language.access import ACCESS
from llmproxyd.language.faults import FAULTS
from llmproxyd.language.grammar import Argument, Option, Table, Verb
from llmproxyd.language.kinds import Choice, Count, Filtering, Free
from llmproxyd.language.scenarios import SCENARIOS

WATCHING = "What goes on"
UPSTREAMS = "Upstreams"
DAEMON = "The daemon"
CONSOLE = "The console"

LEVELS = ("debug", "info", "warn", "error", "critical")
MOST_REQUESTS = 1000
"""Requests that are listed at once at most."""

_HOW_MANY = Argument("N", Count(1, MOST_REQUESTS), optional=True)
_FILTERS = Argument("FILTER", Filtering(), optional=True, many=True)
_UPSTREAM = Argument("NAME", Free("the name of an upstream", of="upstream"))
_BREAKER = Argument("NAME", Free("the name of a breaker: an upstream, or upstream/model", of="breaker"))
_PURGED = 'UPSTREAM and path ("openai /v1/models"), or the upstream\'s own URL'

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
        *FAULTS,
        *SCENARIOS,
        *_WATCHING_VERBS,
        *_UPSTREAM_VERBS,
        *ACCESS,
        *_DAEMON_VERBS,
        *_CONSOLE_VERBS,
    )
)
"""The language."""
