"""Where relative paths stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmproxyd.config.problems import quoted


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of one start.

    :param base: of the configuration file, or where there is none that of the state.
    :param logs: systemd's, where no file says what paths stand against.
    :param home: of the user, empty when it is not known.
    :param state: systemd's for what is kept, file or not: it is the one that can be written to.
    """

    base: Path
    logs: Path | None = None
    home: str = ""
    state: Path | None = None

    def expanded(self, text: str) -> Path:
        """The path *text*, with ``~`` for the home folder; a relative one stays so.

        :raises ValueError: it is no path.
        """
        if not text or "\0" in text:
            raise ValueError(f"found {quoted(text)}; accepted: a path")
        if self.home and (text == "~" or text.startswith("~/")):
            text = self.home + text[1:]
        return Path(text)

    def resolve(self, text: str) -> Path:
        """The path that *text* means.

        :raises ValueError: it is no path.
        """
        return self.base / self.expanded(text)

    def of_logs(self, path: Path) -> Path:
        """The folder of logs that *path* means.

        systemd's folder for logs is itself what ``logs`` means, and holds what stands below.
        """
        if self.logs is None:
            return self.base / path
        below = path.parts[1:] if path.parts[:1] == ("logs",) else path.parts
        return self.logs.joinpath(*below)

    def of_state(self, path: Path) -> Path:
        """The place of a file that the daemon keeps (database, audit, events)."""
        return (self.state or self.base) / path


def folders_of(environ: Mapping[str, str], file: Path | None) -> Folders:
    """The folders for a start with *file*."""
    home = environ.get("HOME", "")
    given = _first(environ, "STATE_DIRECTORY")
    state = Path(given) if given else None
    if file is not None:
        return Folders(file.absolute().parent, home=home, state=state)
    logs = _first(environ, "LOGS_DIRECTORY")
    return Folders(state_folder(environ), Path(logs) if logs else None, home, state)


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where state is kept: systemd's ``$STATE_DIRECTORY``, else the XDG state folder."""
    given = _first(environ, "STATE_DIRECTORY")
    if given:
        return Path(given)
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    if xdg.is_absolute():
        return xdg / "llmproxyd"
    home = environ.get("HOME")
    return (Path(home) if home else Path.cwd()) / ".local" / "state" / "llmproxyd"


def _first(environ: Mapping[str, str], variable: str) -> str:
    """The first of *variable*'s folders, the main one: systemd separates several folders by colons."""
    return environ.get(variable, "").partition(":")[0]
