"""Recording of real exchanges, and answers from recordings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from llmproxyd.config import texts
from llmproxyd.config.destinations import Upstream
from llmproxyd.config.markers import AtLeast, check
from llmproxyd.units import Size

SLOWEST = 0.01

NOWHERE = "http://replay.invalid"
"""Stands for the address of a provider that has no global one, where nobody is asked anyway."""

RecordingFolder = Annotated[Path, check(texts.FOLDER, texts.folder)]
IgnoredMember = Annotated[str, check(texts.MEMBER, texts.member)]


@dataclass(frozen=True, slots=True)
class Record:
    """Real exchanges are kept, a file each, without credentials.

    :param folder: where; it is made where it is missing, and ``None`` records nothing.
    :param max_files: so many recordings in the folder; more are not made.
    :param max_body: bytes of a request's or an answer's body; an exchange with a longer one is not recorded.
    """

    folder: RecordingFolder | None = None
    max_files: Annotated[int, AtLeast(1)] = 1000
    max_body: Annotated[Size, AtLeast(1)] = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class Replay:
    """Answers come from recordings.

    :param folder: where they are; ``None`` asks the upstreams.
    :param speed: how many times as fast as it was; 0 for without any wait.
    :param on_miss: what is done with a request that has no recording: answer with an ``error``,
        ``forward`` it to its upstream, or forward and ``record`` it.
    :param ignore: members of JSON bodies that may differ, such as ``user`` or ``metadata.session``; a
        path goes through lists.
    """

    folder: RecordingFolder | None = None
    speed: Annotated[float, AtLeast(0)] = 1.0
    on_miss: Literal["error", "forward", "record"] = "error"
    ignore: tuple[IgnoredMember, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether nobody else is ever asked."""
        return self.folder is not None and self.on_miss == "error"


def recorded_to(record: Record, replay: Replay) -> Path | None:
    """The folder in which recordings are made; ``None`` for none."""
    if replay.folder is not None and replay.on_miss == "record":
        return record.folder or replay.folder
    return record.folder if replay.folder is None else None


def conflicts(record: Record, replay: Replay, *, sandbox: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with both taken together: the key, and why."""
    if 0 < replay.speed < SLOWEST:
        yield "replay.speed", f"found {replay.speed:g}; accepted: 0, or {SLOWEST:g} at least"
    if replay.folder is None and replay.on_miss != "error":
        yield "replay.on_miss", "there is no replay.folder in which something could be missing"
    if replay.folder is not None:
        if sandbox:
            yield "replay.folder", "the sandbox answers everything (sandbox.enabled); accepted: one of them"
        if record.folder is not None and replay.on_miss != "record":
            told = "nothing would be recorded while recordings answer; accepted: replay.on_miss: record"
            yield "record.folder", told
        if replay.on_miss != "record" and (why := _unreadable(replay.folder)):
            yield "replay.folder", why
    folder = recorded_to(record, replay)
    if folder is not None and (why := _unwritable(folder)):
        yield "replay.folder" if record.folder is None else "record.folder", why


def with_recorded(upstreams: Mapping[str, Upstream], providers: Iterable[str]) -> Mapping[str, Upstream]:
    """*upstreams*, and one for each of *providers* that has no address: recordings answer for it, too."""
    return {name: Upstream(provider=name, base_url=NOWHERE) for name in providers} | dict(upstreams)


def _unreadable(folder: Path) -> str | None:
    if not folder.is_dir():
        return (
            f"{folder} is {'no folder' if folder.exists() else 'missing'}; accepted: a folder of recordings"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"{folder} must not be read by this user"
    return None


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written there, or the folder not be made."""
    there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    if not there.is_dir():
        return f"{there} is no folder; accepted: {texts.FOLDER}"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} must not be written to by this user; accepted: {texts.FOLDER} that can be"
    return None
