"""What of the gateway's keys can be judged only when all is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath

from llmproxyd.config.convert import Walker
from llmproxyd.config.problems import Path, path_text
from llmproxyd.config.schema import Config
from llmproxyd.config.urls import SQLITE

_URL = ("cache", "redis_url")


def check(config: Config, walker: Walker) -> None:
    """Report on *walker* what does not fit together in *config*."""
    if config.cache.redis_url is None and not walker.failed(_URL):
        for path in _ask_redis(config):
            if path[0] != "cache":
                walker.problem(path, "found redis, but cache.redis_url, where it is, is missing")
    _doubled(config, walker)


def warnings(config: Config, walker: Walker) -> list[str]:
    """What is written and has no effect, one sentence each."""
    found: list[tuple[Path, str]] = []
    if config.access.enabled:
        for name, upstream in config.upstreams.items():
            for key in ("api_key", "api_keys"):
                if getattr(upstream, key):
                    found.append((("upstreams", name, key), "not used: projects hold the credentials"))
    if config.cache.redis_url is not None and not any(_ask_redis(config)):
        idle = "not used: neither the cache nor limits nor events are told to use Redis"
        found.append((_URL, idle))
    return [_told(path, message, walker) for path, message in found]


def _told(path: Path, message: str, walker: Walker) -> str:
    source = walker.source(path)
    return ": ".join([*([str(source)] if source else []), path_text(path), message])


def _ask_redis(config: Config) -> Iterator[Path]:
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
