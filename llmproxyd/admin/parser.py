"""The command line of ``llmproxyctl``: every verb, its options and an example."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from llmproxyd.admin import completion, diagnose, lines, local, starters, top, verbs, waiting
from llmproxyd.admin.client import checked_url
from llmproxyd.admin.shells import SCRIPTS
from llmproxyd.units import parse_duration

DESCRIPTION = """\
Talks to a running llmproxyd over its admin socket.

The socket is looked for where the daemon puts it: $LLMPROXYD_ADMIN_SOCKET, else
$RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/llmproxyd, the state folder, /run/llmproxyd.
init, config check, config import, completion and passwd need no daemon."""

STATUSES = "exit status: 0 done, 1 refused or failed, 2 usage, 3 no daemon reachable"

Handler = Callable[..., int]


class _Tree:
    """Adds verbs to a parser, each with the common options."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._verbs = parser.add_subparsers(metavar="VERB", required=True, title="verbs")

    def verb(
        self,
        name: str,
        handler: Handler,
        about: str,
        *examples: str,
        needs_daemon: bool = True,
        own_url: bool = False,
    ) -> argparse.ArgumentParser:
        """A verb that *handler* does.

        :param own_url: its ``--url`` is another one; that of the daemon stands before the verb.
        """
        lines = "\n".join(f"  llmproxyctl {one}" for one in examples)
        parser = self._verbs.add_parser(
            name,
            help=about,
            description=about[:1].upper() + about[1:] + ".",
            epilog=f"examples:\n{lines}\n\n{STATUSES}" if examples else STATUSES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[_common(argparse.SUPPRESS, url=not own_url)] if needs_daemon else [],
            allow_abbrev=False,
        )
        parser.set_defaults(handler=handler, needs_daemon=needs_daemon)
        return parser

    def group(self, name: str, about: str) -> _Tree:
        """A word that verbs stand below."""
        parser = self._verbs.add_parser(
            name, help=about, description=about[:1].upper() + about[1:] + ".", allow_abbrev=False
        )
        return _Tree(parser)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="llmproxyctl",
        description=DESCRIPTION,
        epilog=f"llmproxyctl VERB --help shows a verb's options and examples.\n{STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_common(None)],
        allow_abbrev=False,
    )
    tree = _Tree(top)
    _project(tree.group("project", "projects: who shares credentials, allowlists and limits"))
    _token(tree.group("token", "tokens: what clients present instead of a provider's key"))
    _watching(tree)
    _switching(tree)
    _lines(tree)
    _whole(tree)
    _starting(tree)
    return top


def _common(default: str | None, *, url: bool = True) -> argparse.ArgumentParser:
    """The options that stand before the verb or after it.

    :param default: where they stand after it, ``SUPPRESS``: what stood before it holds.
    :param url: whether ``--url`` is among them.
    """
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    where = common.add_mutually_exclusive_group()
    where.add_argument("--socket", type=Path, metavar="PATH", default=default, help="the admin socket")
    if url:
        where.add_argument(
            "--url", type=_url, metavar="URL", default=default, help="origin of an admin listener on TCP"
        )
    common.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        default=default,
        help="holds admin.token, or a project's token with the scope admin "
        "(or $LLMPROXYD_ADMIN_TOKEN holds it itself)",
    )
    common.add_argument(
        "--json", action="store_true", default=default or False, help="print what the daemon answers as JSON"
    )
    return common


def _url(text: str) -> str:
    try:
        return checked_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _project(tree: _Tree) -> None:
    create = tree.verb(
        "create",
        verbs.project_create,
        "make a project",
        "project create team-a --credential openai=@openai.key --rpm 600",
        "project create team-b --credential anthropic  # asks for the key",
    )
    create.add_argument("name", metavar="NAME")
    create.add_argument("--id", help="an id of your own")
    create.add_argument("--inactive", action="store_true", help="refuse its tokens for now")
    _credentials(create)
    _limits(create)
    _allow(create)
    tree.verb("list", verbs.project_list, "list projects", "project list")
    _named(tree.verb("show", verbs.project_show, "show a project", "project show team-a"), "PROJECT")
    update = tree.verb(
        "update",
        verbs.project_update,
        "change what is named and keep the rest",
        "project update team-a --rpm 1200 --allow-param 'model=gpt-4o,gpt-4o-*'",
        "project update team-a --remove-credential mistral --tpm none",
    )
    _named(update, "PROJECT")
    update.add_argument("--name", dest="new_name", metavar="NAME", help="call it so from now on")
    _credentials(update)
    update.add_argument("--remove-credential", action="append", default=[], metavar="UPSTREAM")
    _limits(update)
    _allow(update)
    for name, handler, about in (
        ("activate", verbs.project_activate, "let its tokens be used again"),
        ("deactivate", verbs.project_deactivate, "refuse all its tokens"),
    ):
        _named(tree.verb(name, handler, about, f"project {name} team-a"), "PROJECT")
    delete = tree.verb(
        "delete",
        verbs.project_delete,
        "delete a project, its tokens and credentials",
        "project delete team-a",
    )
    _named(delete, "PROJECT")
    delete.add_argument("--yes", "-y", action="store_true", help="do not ask at a terminal")
    rotate = tree.verb(
        "rotate",
        verbs.project_rotate,
        "replace credentials",
        "project rotate team-a --credential openai=@new.key",
    )
    _named(rotate, "PROJECT")
    _credentials(rotate, required=True)


def _token(tree: _Tree) -> None:
    create = tree.verb(
        "create",
        verbs.token_create,
        "make a token, and print it this once",
        "token create --project team-a --name ci --expires 30d --rpm 60",
        "token create --project team-a --scope fault --max-requests 1000",
    )
    create.add_argument("--project", required=True, metavar="PROJECT", help="id or name")
    _token_settings(create)
    listing = tree.verb(
        "list", verbs.token_list, "list tokens, the newest first", "token list --project team-a"
    )
    listing.add_argument("--project", metavar="PROJECT", help="of this one alone")
    _named(tree.verb("show", verbs.token_show, "show a token", "token show tok_…"), "TOKEN")
    update = tree.verb(
        "update",
        verbs.token_update,
        "change what is named and keep the rest",
        "token update ci --expires 90d --rpm none",
    )
    _named(update, "TOKEN")
    _token_settings(update)
    for name, handler, about in (
        ("activate", verbs.token_activate, "let it be used again"),
        ("deactivate", verbs.token_deactivate, "refuse it until it is activated"),
        ("revoke", verbs.token_revoke, "refuse it for good; it stays on record"),
        ("delete", verbs.token_delete, "delete it; what was used with it stays"),
    ):
        _named(tree.verb(name, handler, about, f"token {name} tok_…", f"token {name} ci"), "TOKEN")
    rotate = tree.verb(
        "rotate",
        verbs.token_rotate,
        "give it a new secret, and print that this once",
        "token rotate ci",
        "token rotate ci --grace 2d",
    )
    _named(rotate, "TOKEN")
    rotate.add_argument("--grace", metavar="DURATION", help="how long the old one works still (at most 30d)")


def _watching(tree: _Tree) -> None:
    tree.verb("status", verbs.status, "show how everything stands", "status", "status --json")
    usage = tree.verb(
        "usage", verbs.usage, "show what was used", "usage --by token --since 7d", "usage --by model"
    )
    usage.add_argument("--by", choices=("project", "token", "model"), default="project")
    usage.add_argument("--since", default="30d", metavar="DURATION|DATE", help="by default 30d")
    usage.add_argument("--limit", type=int, default=1000, metavar="N", help="rows at most (1 to 1000)")
    cache = tree.group("cache", "the shared HTTP cache")
    cache.verb("stats", verbs.cache_stats, "show what it holds", "cache stats")
    purge = cache.verb(
        "purge",
        verbs.cache_purge,
        "forget what it holds",
        "cache purge --url 'openai /v1/models'",
        "--url https://gateway.example.com:8899 cache purge --prefix 'openai /v1/'",
        "cache purge --project team-a",
        "cache purge --all",
        own_url=True,
    )
    what = purge.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--url",
        dest="purge_url",
        metavar="URL",
        help='"UPSTREAM /path", or the upstream\'s own URL (that of the daemon stands before the verb)',
    )
    what.add_argument("--prefix", metavar="URL", help="all whose URL starts so")
    what.add_argument("--project", metavar="PROJECT")
    what.add_argument("--all", action="store_true")


def _switching(tree: _Tree) -> None:
    fault = tree.verb(
        "fault",
        lines.fault,
        "command faults, in the operator's language (n, c, r, u, error KIND, list, add, rm, clear)",
        "fault r 3 retry_after=2",
        "fault 'c 30%' for=5m",
        "fault n",
        "fault add r 30% upstream=openai for=10m",
    )
    fault.add_argument("line", nargs="*", metavar="WORD")
    fault.set_defaults(words=("fault",))
    breaker = tree.verb(
        "breaker",
        verbs.breaker,
        "show the circuit breakers, or switch one",
        "breaker",
        "breaker reset openai",
    )
    breaker.add_argument("action", nargs="?", choices=("trip", "reset"))
    breaker.add_argument("name", nargs="?", metavar="BREAKER")
    test = tree.verb(
        "test", verbs.test, "make one cheap call to an upstream, and say what came of it", "test openai"
    )
    test.add_argument("upstream", metavar="UPSTREAM")
    key = tree.group("key", "the key that credentials are encrypted with (access.secret_key)")
    rotate = key.verb(
        "rotate", verbs.key_rotate, "encrypt all credentials under another key", "key rotate --to @new.key"
    )
    rotate.add_argument("--to", metavar="@FILE|-", help="the new key; without it, it is asked for")


def _lines(tree: _Tree) -> None:
    """Verbs that are lines of the operator's language, as they are."""
    run = tree.verb(
        "run",
        lines.run,
        "do a line of the operator's language",
        "run help all",
        "run 'upstream drain my-vllm'",
    )
    run.add_argument("line", nargs=argparse.REMAINDER, metavar="WORD")
    run.set_defaults(words=())
    requests = tree.verb(
        "requests",
        lines.requests,
        "show the last requests; with tail, those that follow as well",
        "requests 100 'status>=500' upstream=openai",
        "requests tail 'duration>2s'",
    )
    requests.add_argument("line", nargs="*", metavar="tail|N|FILTER")
    requests.set_defaults(words=("requests",))
    for name, about, shown, example in (
        ("explain", "tell all that is known of one request", "ID", "explain req_…"),
        ("upstream", "show the upstreams, drain or enable one", "WORD", "upstream drain my-vllm"),
        ("connections", "show the connections of clients", "WORD", "connections"),
        ("version", "show the versions of the daemon and of what it runs on", "WORD", "version"),
        ("log", "set how much a part of the daemon logs", "WORD", "log level llmproxyd debug"),
    ):
        verb = tree.verb(name, lines.run, about, example)
        verb.add_argument("line", nargs="*", metavar=shown)
        verb.set_defaults(words=(name,))
    shutdown = tree.verb("shutdown", lines.shutdown, "stop the daemon", "shutdown --yes")
    shutdown.add_argument("--yes", "-y", action="store_true", help="do not ask at a terminal")


def _whole(tree: _Tree) -> None:
    """Verbs that do more than one call."""
    ready = tree.verb(
        "wait-ready",
        waiting.wait_ready,
        "wait until the daemon lets clients in; exit status 3 if it does not in time",
        "wait-ready",
        "wait-ready --timeout 2m",
        "wait-ready --url http://127.0.0.1:8888",
        own_url=True,
    )
    ready.add_argument("--timeout", type=_duration, default=30.0, metavar="DURATION", help="by default 30s")
    ready.add_argument(
        "--url",
        dest="public_url",
        type=_url,
        metavar="URL",
        help="ask the listener for clients there (/health/ready), not the admin API",
    )
    watch = tree.verb(
        "top",
        top.top,
        "watch the daemon on a screen of its own: n, c, r, u set the mode, d and e drain and enable "
        "the upstream that is selected, q leaves",
        "top",
        "top --interval 5s",
        "top --once",
        "top --once --json",
    )
    watch.add_argument("--interval", type=_interval, default=1.0, metavar="DURATION", help="by default 1s")
    watch.add_argument("--once", action="store_true", help="print one screen and leave; needs no terminal")
    bundle = tree.verb(
        "diagnose",
        diagnose.diagnose,
        "write a bundle for a bug report, without secrets and bodies",
        "diagnose",
        "diagnose -o bundle.tar.gz",
    )
    bundle.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="by default llmproxyd-diagnose-TIME.tar.gz"
    )
    shell = tree.verb(
        "completion",
        completion.completion,
        "print a script that makes a shell complete llmproxyctl",
        "completion bash > ~/.local/share/bash-completion/completions/llmproxyctl",
        "completion zsh > ~/.zfunc/_llmproxyctl",
        "completion fish > ~/.config/fish/completions/llmproxyctl.fish",
        needs_daemon=False,
    )
    shell.add_argument("shell", choices=tuple(SCRIPTS))


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _interval(text: str) -> float:
    seconds = _duration(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"found {text!r}; accepted: 100ms to 1h")
    return seconds


def _starting(tree: _Tree) -> None:
    config = tree.group("config", "configuration")
    for name, about in (
        ("diff", "show what a reload would change"),
        ("reload", "have the daemon go by its configuration as it is now"),
    ):
        config.verb(name, lines.run, about, f"config {name}").set_defaults(words=("config", name), line=())
    config.verb("show", verbs.config_show, "show the configuration in force, secrets redacted", "config show")
    check = config.verb(
        "check",
        local.config_check,
        "report everything that is wrong with a file",
        "config check llmproxyd.yaml",
        needs_daemon=False,
    )
    check.add_argument("file", metavar="FILE")
    imported = config.verb(
        "import",
        local.config_import,
        "print another program's configuration (or one of ours) in native form, secrets redacted",
        "config import api_providers.yaml > llmproxyd.yaml",
        needs_daemon=False,
    )
    imported.add_argument("file", metavar="FILE")
    init = tree.verb(
        "init",
        starters.init,
        "write a configuration to start with, for you alone to read; what is there stays as it is",
        "init",
        "init goose",
        "init sillytavern proxy.yaml",
        "init team --systemd",
        needs_daemon=False,
    )
    init.add_argument(
        "profile", nargs="?", metavar="PROFILE", help=f"{', '.join(starters.PROFILES)}; by default team"
    )
    init.add_argument("file", nargs="?", type=Path, metavar="FILE", help="by default llmproxyd.yaml")
    init.add_argument(
        "--systemd", action="store_true", help="for a system service; writes its unit and its token as well"
    )
    passwd = tree.verb(
        "passwd",
        local.passwd,
        "print a line for a file of passwords (the operator's console)",
        "passwd alice >> passwords",
        needs_daemon=False,
    )
    passwd.add_argument("user", metavar="USER")


def _named(parser: argparse.ArgumentParser, what: str) -> None:
    told = "id, name or the token itself" if what == "TOKEN" else "id or name"
    parser.add_argument("name", metavar=what, help=told)


def _credentials(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument(
        "--credential",
        action="append",
        default=[],
        required=required,
        metavar="UPSTREAM[=KEY|=@FILE|=-]",
        help="the provider's key; UPSTREAM alone asks for it, @FILE reads it, - is standard input",
    )


def _limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rpm", type=_number, metavar="N", help='requests a minute; "none" for any number')
    parser.add_argument(
        "--tpm", type=_number, metavar="N", help='model tokens a minute; "none" for any number'
    )


def _allow(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("allowlist", 'each may be repeated; "none" empties a list')
    told: Sequence[tuple[str, str, str]] = (
        ("--allow-endpoint", "PATH", "/v1/models, /v1/files/ or a glob"),
        ("--allow-method", "METHOD", "POST"),
        ("--allow-param", "NAME=VALUE[,VALUE…]", "model=gpt-4o,gpt-4o-*"),
        ("--allow-origin", "ORIGIN", "web pages, http://localhost:3000"),
        ("--require-header", "NAME[: VALUE]", "a field that must be there"),
    )
    for option, metavar, about in told:
        group.add_argument(option, action="append", metavar=metavar, help=about)


def _token_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", dest="new_name", metavar="TEXT", help="what it is for")
    parser.add_argument("--expires", metavar="DURATION|DATE", help='30d, 2030-12-31, or "never"')
    parser.add_argument("--max-requests", type=_number, metavar="N", help='over its whole life, or "none"')
    _limits(parser)
    parser.add_argument(
        "--scope",
        action="append",
        choices=("fault", "admin", "none"),
        help="what else it may do: ask for faults, use the admin API (may be repeated)",
    )


def _number(text: str) -> int | str:
    if text == "none":
        return text
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    raise argparse.ArgumentTypeError(f'found {text!r}; accepted: a whole number, or "none"')
