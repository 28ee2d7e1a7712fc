"""What of the gateway's keys can be judged only when all is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath

from llmproxyd.config.convert import Walker
from llmproxyd.config.problems import Path, path_text
from llmproxyd.config.schema import Config
from llmproxyd.config.urls import SQLITE

REDIS_URL = ("cache", "redis_url")


def check(config: Config, walker: Walker) -> None:
    """Report on *walker* what does not fit together in *config*."""
    if config.cache.redis_url is None and not walker.failed(REDIS_URL):
        for path in ask_redis(config):
            if path[0] != "cache":
                walker.problem(path, "found redis, but cache.redis_url, where it is, is missing")
    _doubled(config, walker)


def ask_redis(config: Config) -> Iterator[Path]:
    """The keys in force that say redis."""
    if config.cache.enabled and config.cache.backend == "redis":
        yield ("cache", "backend")
    if config.access.enabled and config.access.limits == "redis":
        yield ("access", "limits")
    for number, one in enumerate(config.events.dispatch):
        if one.to == "redis":
            yield ("events", "dispatch", number, "to")


def _doubled(config: Config, walker: Walker) -> None:
    """No file may be written by two that do not know of each other."""
    taken: dict[FilePath, str] = {}
    store = config.access.store.reveal()
    if config.access.enabled and store.startswith(SQLITE):
        taken[FilePath(store.removeprefix(SQLITE))] = "access.store"
    files: list[tuple[Path, FilePath | None]] = [(("audit", "file"), config.audit.file)]
    for number, one in enumerate(config.events.dispatch):
        files.append((("events", "dispatch", number, "path"), one.path))
    for path, file in files:
        if file is None:
            continue
        if file in taken:
            walker.problem(path, f"{taken[file]} has the same file; accepted: another one")
        taken.setdefault(file, path_text(path))
