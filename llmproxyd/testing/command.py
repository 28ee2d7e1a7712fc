"""``llmproxyd run … -- COMMAND …``: run any command against a daemon of its own.

The variables that SDKs and agents read point at the daemon while the command runs; then both are over,
and the exit status says how it went.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from llmproxyd.admin.client import Failed, Unreachable
from llmproxyd.testing.rehearsed import Rehearsed
from llmproxyd.testing.running import Daemon, NotStarted

NOT_STARTED = 3
NOT_FOUND = 127
BY_SIGNAL = 128

_ABOUT = """\
Start a daemon on a free port, run COMMAND with OPENAI_BASE_URL, ANTHROPIC_BASE_URL and the other
variables set to it, stop the daemon, and exit with the command's status. A command that succeeds still
ends with 1 where a fault that was asked for never came (--scenario, --mode with --require-faults), or,
with --fail-on-verdict, where the client did something wrong after a failure.
"""
_EXAMPLES = """\
Options that are not listed are the daemon's own (llmproxyd --help): --config FILE, --mode "r 3",
--replay FOLDER. LLMPROXYD_URL holds the daemon's origin.

  llmproxyd run --scenario "r x2, ok *" -- pytest tests/
  llmproxyd run --scenario outage.yaml --report report.xml -- npm test
"""


def parser() -> argparse.ArgumentParser:
    """What stands before ``--``."""
    made = argparse.ArgumentParser(
        prog="llmproxyd run",
        usage="llmproxyd run [OPTION …] -- COMMAND [ARGUMENT …]",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--scenario", metavar="FILE", help="a scenario file, or one in a line")
    made.add_argument(
        "--report", metavar="FILE", help="write what came to FILE: JSON, or JUnit XML where it ends in .xml"
    )
    made.add_argument(
        "--real", action="store_true", help="forward to the real providers instead of the built-in stand-in"
    )
    made.add_argument(
        "--fail-on-verdict",
        action="store_true",
        help="exit with 1 where a verdict on the client is a problem",
    )
    made.add_argument("--log", metavar="FILE", help="keep what the daemon says in FILE")
    made.add_argument("--quiet", action="store_true", help="do not say in the end what came")
    return made


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit status."""
    words = list(arguments)
    cut = words.index("--") if "--" in words else len(words)
    made = parser()
    given, rest = made.parse_known_args(words[:cut])
    command = words[cut + 1 :]
    if not command:
        made.error("a command is missing; it stands behind --")
    options = list(rest)
    for name in ("scenario", "report"):
        value = getattr(given, name)
        if value is not None:
            options += [f"--{name}", value]
    if given.scenario is not None:
        options.append("--require-faults")
    daemon = Daemon(*options, sandbox=not given.real, env=os.environ)
    try:
        with daemon:
            return _run(command, daemon, given)
    except NotStarted as error:
        _say(str(error).rstrip())
        return NOT_STARTED


def _run(command: Sequence[str], daemon: Daemon, given: argparse.Namespace) -> int:
    rehearsed = Rehearsed(daemon, fresh=True)
    env = {**os.environ, **rehearsed.env(), "LLMPROXYD_URL": daemon.url}
    try:
        status = _status_of(command, env)
        verdicts, summary = _told(rehearsed)
    finally:
        ended = daemon.stop()
        if given.log is not None:
            Path(given.log).write_text(daemon.log)
    if ended:
        lines = daemon.log.strip().splitlines()
        _say("\n".join(lines[-3:]))
    if not given.quiet:
        where = "" if given.report is None else f"; report in {given.report}"
        _say(f"{summary}{where}")
    if status:
        return status
    return 1 if ended or (verdicts and given.fail_on_verdict) else 0


def _status_of(command: Sequence[str], env: dict[str, str]) -> int:
    """Run *command* to its end, with what ends us handed on to it."""
    running: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, frame: object) -> None:
        for process in running:
            process.send_signal(number)

    before = {one: signal.signal(one, hand_on) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        running.append(subprocess.Popen(command, env=env))
        # A terminal sends Ctrl-C to the command too: we wait for what it makes of it.
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        status = running[0].wait()
    except OSError as error:
        _say(f"{command[0]}: {error.strerror}")
        return NOT_FOUND
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    return status if status >= 0 else BY_SIGNAL - status


def _told(rehearsed: Rehearsed) -> tuple[int, str]:
    """How many verdicts are problems, and what came in a line; each verdict is said."""
    try:
        requests, verdicts = rehearsed.requests, rehearsed.verdicts
    except (Failed, Unreachable) as error:
        return 0, f"the daemon does not tell what came: {error}"
    for one in verdicts:
        _say(f"{one['severity']}: {one['name']}: {one['text']}")
    faults = sum(one.fault is not None for one in requests)
    told = ((len(requests), "request"), (faults, "fault"), (len(verdicts), "verdict"))
    problems = sum(one["severity"] == "problem" for one in verdicts)
    return problems, ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in told)


def _say(text: str) -> None:
    print(f"llmproxyd: {text}", file=sys.stderr)
