"""The command line of the daemon: options → configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from twisted.python import usage

from llmproxyd.config.dump import dump
from llmproxyd.config.load import ConfigError, load, presets
from llmproxyd.config.schema import Config
from llmproxyd.faults.language import LanguageError, parse
from llmproxyd.faults.scenariotext import parse_asked
from llmproxyd.listen import endpoints
from llmproxyd.observe import journald
from llmproxyd.providers.base import Provider
from llmproxyd.providers.registry import ProviderError, registry

DEFAULT_PORT = 8888


class Options(usage.Options):
    """The command line of ``twistd llmproxy``."""

    optParameters = [  # noqa: RUF012
        ["config", "c", None, "YAML file to read; without one the defaults hold."],
        ["preset", None, None, f"Settings under those of the file: {', '.join(presets())}."],
        ["port", "p", None, f"Port to listen on, 0 for any free one [default: {DEFAULT_PORT}]."],
        [
            "interface",
            "i",
            None,
            "Address to listen on [default: 127.0.0.1 and ::1]. With --port it takes the place of "
            "the file's listen.",
        ],
        ["mode", "m", None, 'Error mode to start with, as an operator would type it: "c 3", "r 30%".'],
        [
            "scenario",
            None,
            None,
            "Scenario to start with: a YAML file, or, where there is none of that name, steps as an operator "
            'would type them: "r x2, ok, cut at=3, ok * scope=test".',
        ],
        [
            "report",
            None,
            None,
            "File that tells, once the daemon has stopped, which steps were reached and what became of each "
            "request: JUnit XML if its name ends in .xml, else JSON.",
        ],
        ["record", None, None, "Folder in which real exchanges are kept, a file each, without credentials."],
        ["replay", None, None, "Folder of recordings that answer in place of upstreams: no key, no network."],
        ["speed", None, None, "With --replay: 1 as it was, 0 without waits, N times as fast [default: 1]."],
        [
            "on-miss",
            None,
            None,
            "With --replay, for a request that has no recording: error, forward or record [default: error].",
        ],
        ["ready-file", None, None, "File that receives the base URL once requests are accepted."],
    ]
    optFlags = [  # noqa: RUF012
        ["no-stdin", None, "Take no commands from standard input (background, CI)."],
        ["sandbox", None, "Answer from a built-in stand-in for all providers: no key, no network."],
        ["require-faults", None, "Exit with status 1 when an error that was asked for never came."],
        ["check-config", None, "Report everything that is wrong with the configuration, and exit."],
        ["print-config", None, "Print the configuration in force, secrets redacted, and exit."],
    ]
    longdesc = (
        "A proxy between LLM clients and LLM providers. It passes everything through unchanged; "
        "on command (n, c, r, u, error KIND, breaker, status, help, q at its terminal) it answers "
        "with the provider's own errors; where its configuration says so it absorbs failure, and "
        "puts it on record."
    )

    config: Config
    providers: Mapping[str, Provider]

    def getSynopsis(self) -> str:
        """The first line of ``--help``."""
        return "Usage: twistd -n llmproxy [options]   (or: llmproxyd [options])"

    def opt_version(self) -> None:
        """Print the version, and exit."""
        print(f"llmproxyd {version('llmproxyd')}")
        raise SystemExit(0)

    def parseArgs(self, *args: str) -> None:
        """Refuse what is no option.

        :raises usage.UsageError: always, when anything is left.
        """
        if args:
            raise usage.UsageError(f"unexpected argument {args[0]!r}")

    def parseOptions(self, options: Any = None) -> None:
        """Read the command line; a mistake in it is one line and exit status 1."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            fail(f"{error}; --help lists the options")

    def postOptions(self) -> None:
        """Load the configuration, so that its mistakes end the start before anything runs.

        :raises usage.UsageError: an option's value is impossible.
        """
        try:
            self.providers = registry()
            self.config = self.load()
        except (ConfigError, ProviderError) as error:
            fail(str(error))
        if self["speed"] is not None and self.config.replay.folder is None:
            raise usage.UsageError("--speed says how to replay; add --replay DIR")
        if self["print-config"]:
            print(dump(self.config), end="")
            raise SystemExit(0)
        if self["check-config"]:
            for warning in self.config.warnings:
                print(f"warning: {warning}", file=sys.stderr)
            print(f"{self['config'] or 'The default configuration'} is valid.")
            raise SystemExit(0)
        self._keep_no_pidfile()

    def load(self) -> Config:
        """The configuration as it stands now.

        :raises ConfigError: it cannot be used.
        """
        return load(
            file=self["config"],
            preset=self["preset"],
            environ=os.environ,
            overrides=self._overrides(),
            providers=self.providers,
        )

    def _overrides(self) -> dict[tuple[str, ...], tuple[object, str]]:
        found: dict[tuple[str, ...], tuple[object, str]] = {}
        if self["port"] is not None or self["interface"] is not None:
            listening = list(endpoints(self._port(), self["interface"]))
            found[("listen",)] = (listening, "--port" if self["port"] is not None else "--interface")
        if self["mode"] is not None:
            try:
                parse(self["mode"])
            except LanguageError as error:
                raise usage.UsageError(f"--mode: {error}") from None
            found[("faults", "mode")] = (self["mode"], "--mode")
        if self["scenario"] is not None:
            found[("faults", "scenario")] = (self._scenario(), "--scenario")
        if self["report"] is not None:
            found[("faults", "report")] = (str(Path(self["report"]).absolute()), "--report")
        for option in ("record", "replay"):
            if self[option] is not None:
                found[(option, "folder")] = (str(Path(self[option]).absolute()), f"--{option}")
        if self["speed"] is not None:
            found[("replay", "speed")] = (self["speed"], "--speed")
        if self["on-miss"] is not None:
            found[("replay", "on_miss")] = (self["on-miss"], "--on-miss")
        if self["sandbox"]:
            found[("sandbox", "enabled")] = (True, "--sandbox")
        if self["no-stdin"]:
            found[("operator", "stdin")] = (False, "--no-stdin")
        return found

    def _scenario(self) -> str:
        """The scenario as the configuration takes it: a file by its whole path, or a line.

        :raises usage.UsageError: it is neither.
        """
        text: str = self["scenario"]
        if Path(text).is_file():
            return str(Path(text).absolute())
        try:
            file = parse_asked(text).file
        except LanguageError as error:
            raise usage.UsageError(f"--scenario: there is no file {text!r}, and as steps: {error}") from None
        return text if file is None else text.replace(file, str(Path(file).absolute()), 1)

    def _port(self) -> int:
        text = self["port"]
        if text is None:
            return DEFAULT_PORT
        if not text.isascii() or not text.isdigit() or int(text) > 65535:
            raise usage.UsageError(f"--port {text!r} is no port; accepted: 0 to 65535")
        return int(text)

    def _keep_no_pidfile(self) -> None:
        """Write no ``twistd.pid`` where nobody asked for one.

        twistd would refuse to start a second daemon in the same folder because of it.  In the
        background (without ``-n``) the file is the way to find the daemon, and stays.
        """
        parent = self.parent
        if parent is None or not parent.get("nodaemon"):
            return
        if not any(word.startswith("--pidfile") for word in sys.argv):
            parent["pidfile"] = ""


def fail(message: str) -> None:
    """End the process with *message* on standard error and exit status 1."""
    journald.complain(message, sys.__stderr__, os.environ)
    raise SystemExit(1)
