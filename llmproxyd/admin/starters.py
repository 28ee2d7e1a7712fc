"""``llmproxyctl init``: files to start with."""

from __future__ import annotations

import os
import secrets
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from shlex import quote

from llmproxyd.admin.socket import LONGEST, NAME, SYSTEM, endpoint
from llmproxyd.admin.verbs import DONE, REFUSED, UsageError, say
from llmproxyd.config.folders import state_folder
from llmproxyd.config.problems import did_you_mean
from llmproxyd.control.tables import plain

PROFILES = ("goose", "sillytavern", "venice", "team")
"""Those who are written for."""

DEFAULT = "team"
FILE = Path("llmproxyd.yaml")
UNIT = "llmproxyd.service"
CREDENTIAL = "llmproxyd.admin_token"
"""What the unit hands the token over as; the file has the same name."""

CONFIGURED = Path("/etc/llmproxyd/llmproxyd.yaml")
LOGS = "/var/log/llmproxyd"
COMMAND = "/opt/llmproxyd/bin/llmproxyd"
"""What the unit starts as it is shipped."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is to be written.

    :param secret: nobody else may read it.
    """

    path: Path
    text: str
    secret: bool = True


def init(given: Namespace) -> int:
    """Write a configuration to start with; what is there stays as it is."""
    profile, file = _meant(given.profile, given.file)
    token = secrets.token_urlsafe(24)
    if given.systemd:
        wanted = _for_systemd(profile, file, token)
    else:
        wanted = [Written(file, configuration(profile, file.name, f'"{token}"', _socket()))]
    if not _write(wanted):
        return REFUSED
    print(f"Wrote {', '.join(str(one.path) for one in wanted)}.")
    commands = _system_commands(file) if given.systemd else _commands(file)
    print("\n".join([*commands, *_then(profile)]))
    return DONE


def configuration(profile: str, name: str, token: str, socket: Path) -> str:
    """The file for *profile*.

    :param name: what it is called.
    :param token: of administrators, as YAML has it.
    :param socket: where they connect, if the file says so.
    :raises UsageError: its path is too long.
    """
    text = shipped(f"{profile}.yaml")
    if "@ADMIN@" in text and len(os.fsencode(socket)) > LONGEST:
        raise UsageError(f"{socket} is too long for a socket; set XDG_STATE_HOME to a shorter folder")
    values = {"@FILE@": plain(name), "@TOKEN@": token, "@ADMIN@": _quoted(endpoint(socket))}
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


def shipped(name: str) -> str:
    """The text of a file that comes with this package."""
    return (files("llmproxyd.admin") / "files" / name).read_text(encoding="utf-8")


def _quoted(text: str) -> str:
    """*text* as a string of YAML in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _meant(profile: str | None, file: Path | None) -> tuple[str, Path]:
    """The profile and the file; the first word alone may be the file.

    :raises UsageError: it is neither.
    """
    if profile is None or profile in PROFILES:
        return profile or DEFAULT, file or FILE
    if file is None and ("." in profile or "/" in profile):
        return DEFAULT, Path(profile)
    known = ", ".join(PROFILES)
    hint = did_you_mean(profile, PROFILES)
    raise UsageError(f'init: found "{plain(profile)}"; accepted: {known}, or a file such as x.yaml{hint}')


def _socket() -> Path:
    """A socket that llmproxyctl finds by itself, in a folder that outlives the session."""
    return state_folder(os.environ).absolute() / NAME


def _for_systemd(profile: str, file: Path, token: str) -> list[Written]:
    folder = file.parent
    text = configuration(profile, file.name, f"{{credential: {CREDENTIAL}}}", SYSTEM)
    return [
        Written(file, text.replace("folder: logs", f"folder: {LOGS}")),
        Written(folder / CREDENTIAL, token + "\n"),
        Written(folder / UNIT, unit(_command()), secret=False),
    ]


def _commands(file: Path) -> Iterator[str]:
    """What comes next, for somebody at a terminal."""
    yield "Start it, and see whether it is there:"
    yield f"  llmproxyd --config {quote(str(file))}"
    yield "  llmproxyctl wait-ready"


def _then(profile: str) -> Iterator[str]:
    if profile == "team":
        yield "Then, for the first project (it asks for the provider's key) and its first token:"
        yield "  llmproxyctl project create my-team --credential openai"
        yield "  llmproxyctl token create --project my-team --expires 90d"
    else:
        yield "  llmproxyctl top"


def _system_commands(file: Path) -> Iterator[str]:
    """What comes next, for root."""
    folder = file.parent
    text = shipped(UNIT)
    if unit(_command()) == text and not Path(COMMAND).is_file():
        yield f"The unit starts {COMMAND}. To install it there, as root:"
        yield "  python3 -m venv /opt/llmproxyd"
        yield "  /opt/llmproxyd/bin/pip install llmproxyd"
        yield f"  {COMMAND} --version"
    yield "As root:"
    yield f"  install -D -m 0644 {quote(str(file))} {CONFIGURED}"
    yield "  install -d -m 0700 /etc/credstore"
    yield f"  install -m 0600 {quote(str(folder / CREDENTIAL))} /etc/credstore/{CREDENTIAL}"
    yield f"  install -m 0644 {quote(str(folder / UNIT))} /etc/systemd/system/{UNIT}"
    yield "  systemctl daemon-reload"
    yield "  systemctl enable --now llmproxyd"
    yield "  llmproxyctl wait-ready"


def _command() -> Path:
    return Path(sys.executable).with_name("llmproxyd")


def unit(command: Path) -> str:
    """The unit, for the *command* of this installation, where it is one that a service can start."""
    text = shipped(UNIT)
    if command.is_file() and os.access(command, os.X_OK) and not _hidden(command):
        return text.replace(f"ExecStart={COMMAND} ", f"ExecStart={command} ")
    return text


def _hidden(command: Path) -> bool:
    """Whether the service could not see it (``ProtectHome=``, ``PrivateTmp=``), or not take its name."""
    away = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
    places = (str(command), str(command.resolve()))
    return any(char in str(command) for char in " %$\\\"';") or any(
        one == folder or one.startswith(f"{folder}/") for one in places for folder in away
    )


def _write(wanted: list[Written]) -> bool:
    """Write all or none; whether they are written."""
    done: list[Path] = []
    for one in wanted:
        try:
            descriptor = os.open(
                one.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if one.secret else 0o644
            )
            done.append(one.path)
            with open(descriptor, "w", encoding="utf-8") as stream:
                stream.write(one.text)
        except OSError as error:
            why = "is there already" if isinstance(error, FileExistsError) else f"{error.strerror}"
            say(f"llmproxyctl: {one.path} {why}; nothing was written")
            for path in done:
                path.unlink(missing_ok=True)
            return False
    return True
