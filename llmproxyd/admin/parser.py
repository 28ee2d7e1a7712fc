"""The command line of ``llmproxyctl``: every verb, its options and an example."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from llmproxyd.admin import completion, diagnose, lines, local, projectverbs, starters, top, verbs, waiting
from llmproxyd.admin.shells import SCRIPTS
from llmproxyd.admin.tree import STATUSES, Tree, common, duration, interval, url
from llmproxyd.language.faults import MODES
from llmproxyd.language.table import CONSOLE, TABLE

DESCRIPTION = """\
Talks to a running llmproxyd over its admin socket.

The socket is looked for where the daemon puts it: $LLMPROXYD_ADMIN_SOCKET, else
$RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/llmproxyd, the state folder, /run/llmproxyd.
init, config check, config import, completion and passwd need no daemon."""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="llmproxyctl",
        description=DESCRIPTION,
        epilog=f"llmproxyctl VERB --help shows a verb's options and examples.\n{STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common(None)],
        allow_abbrev=False,
    )
    tree = Tree(top)
    projectverbs.project(tree.group("project", "projects: who shares credentials, allowlists and limits"))
    projectverbs.token(tree.group("token", "tokens: what clients present instead of a provider's key"))
    _watching(tree)
    _switching(tree)
    _lines(tree)
    _whole(tree)
    _starting(tree)
    _others(tree)
    return top


def _watching(tree: Tree) -> None:
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


def _switching(tree: Tree) -> None:
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
    breaker.add_argument("action", nargs="?", choices=("show", "trip", "reset"))
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


def _lines(tree: Tree) -> None:
    """Verbs that are lines of the operator's language, with a way of their own to be written or shown."""
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
    verdicts = tree.verb(
        "verdicts",
        lines.verdicts,
        "show what clients did wrong after a failure; with clear, forget it",
        "verdicts",
        "verdicts --over --json",
        "verdicts clear",
    )
    verdicts.add_argument("action", nargs="?", choices=("clear",))
    verdicts.add_argument("--test", metavar="TEST", help="only of requests of this test")
    verdicts.add_argument(
        "--over", action="store_true", help="also what there would be to say if no client came back any more"
    )
    shutdown = tree.verb("shutdown", lines.shutdown, "stop the daemon", "shutdown --yes")
    shutdown.add_argument("--yes", "-y", action="store_true", help="do not ask at a terminal")


def _whole(tree: Tree) -> None:
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
    ready.add_argument("--timeout", type=duration, default=30.0, metavar="DURATION", help="by default 30s")
    ready.add_argument(
        "--url",
        dest="public_url",
        type=url,
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
    watch.add_argument("--interval", type=interval, default=1.0, metavar="DURATION", help="by default 1s")
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


def _starting(tree: Tree) -> None:
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


def _others(tree: Tree) -> None:
    """All other verbs of the operator's language: lines of it, as they are."""
    for word in TABLE.firsts:
        verbs = [one for one in TABLE.verbs if one.words[0] == word]
        if word in tree.words or any(one in MODES or one.section == CONSOLE for one in verbs):
            continue
        first, below = verbs[0], [one.words[1] for one in verbs if len(one.words) > 1]
        about = (
            first.about[:1].lower()
            + first.about[1:].partition(":")[0]
            + (f" ({', '.join(below)})" if below else "")
        )
        examples = [example for one in verbs for example in one.examples] or [first.name]
        verb = tree.verb(word, lines.run, about, *(shlex.join(shlex.split(one)) for one in examples))
        shown = first.arguments[0].name if first.arguments and not below else "WORD"
        verb.add_argument("line", nargs="*", metavar=shown)
        verb.set_defaults(words=(word,))
