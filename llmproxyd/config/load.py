"""From files, environment and command line to one :class:`Config`, or to all that is wrong.

Layers: defaults, preset, file, environment, command line; the later ones win.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

from llmproxyd.config import env, upstreams, yamltree
from llmproxyd.config.convert import Walker
from llmproxyd.config.problems import ConfigError, Problem, did_you_mean, path_text, quoted
from llmproxyd.config.schema import Config
from llmproxyd.config.secret import OTHERS, SecretReader, mode
from llmproxyd.config.tree import Entry, Layer, Node, Scalar, Source, Table, from_value, insert
from llmproxyd.providers.base import Provider

__all__ = ["ConfigError", "Problem", "load", "presets"]

MAX_FILE = 1024 * 1024
"""Bytes of a configuration file."""

_GROUP_OR_OTHERS = 0o044
_NOTHING: Mapping[tuple[str, ...], tuple[object, str]] = {}


def load(
    *,
    file: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    environ: Mapping[str, str],
    overrides: Mapping[tuple[str, ...], tuple[object, str]] = _NOTHING,
    providers: Mapping[str, Provider],
) -> Config:
    """The configuration that the layers make up.

    :param overrides: the command line's, by path: the value and the option's name.
    :param providers: by name; each with an address is an upstream without being configured.
    :raises ConfigError: with everything that is wrong.
    """
    path = None if file is None else Path(file)
    layers: list[Table] = []
    problems: list[Problem] = []
    if preset is not None:
        problems += _add(_preset(preset), layers)
    if path is not None:
        problems += _add(_file(path), layers)
    if any(not problem.path for problem in problems):
        # A file that was not understood as a whole: what it would have said is unknown.
        raise ConfigError(problems)
    state = state_folder(environ)
    settings, warnings = env.layer(environ, Config, layers, {("upstreams",): providers})
    layers += [settings, _command_line(overrides)]
    secrets = SecretReader(environ, state if path is None else path.absolute().parent)
    walker = Walker(Config, secrets)
    config = walker.table(Config, layers, ())
    assert isinstance(config, Config)
    config = replace(config, upstreams=upstreams.complete(config.upstreams, providers, environ, walker))
    _check_references(config, providers, walker)
    problems += walker.problems
    if problems:
        raise ConfigError(sorted(problems, key=_place))
    warnings += secrets.warnings + _readable_by_others(path, secrets) + _readable_keys(config)
    return replace(config, source=path, state_folder=state, warnings=tuple(warnings))


def presets() -> list[str]:
    """The names that ``preset`` accepts."""
    folder = resources.files("llmproxyd.config") / "presets"
    names = [item.name for item in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where state is kept: systemd's ``$STATE_DIRECTORY``, else the XDG state folder."""
    # systemd separates several folders by colons; the first is the main one.
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    if xdg.is_absolute():
        return xdg / "llmproxyd"
    home = environ.get("HOME")
    return (Path(home) if home else Path.cwd()) / ".local" / "state" / "llmproxyd"


def _add(read: tuple[Node | None, list[Problem]], layers: list[Table]) -> list[Problem]:
    """Put what was read onto *layers*; what is wrong with it is returned."""
    node, problems = read
    if isinstance(node, Table):
        layers.append(node)
    elif node is not None and not (isinstance(node, Scalar) and node.is_null):
        message = "the file must be a mapping of keys to values, such as `default_upstream: openai`"
        problems.append(Problem(str(node.source), "", message))
    return problems


def _preset(name: str) -> tuple[Node | None, list[Problem]]:
    known = presets()
    if name not in known:
        accepted = f"{did_you_mean(name, known)} (accepted: {', '.join(known)})"
        return None, [Problem("--preset", "", f"found {quoted(name)}, which is no preset{accepted}")]
    text = (resources.files("llmproxyd.config") / "presets" / f"{name}.yaml").read_text("utf-8")
    return yamltree.parse(text, f"preset {name}", Layer.PRESET)


def _file(path: Path) -> tuple[Node | None, list[Problem]]:
    name = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except IsADirectoryError:
        return None, [Problem(name, "", "is a folder; name the file in it")]
    except FileNotFoundError:
        return None, [Problem(name, "", "there is no such file")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return None, [Problem(name, "", f"cannot be read: {reason}")]
    if len(data) > MAX_FILE:
        return None, [Problem(name, "", "is longer than 1 MiB; is it the right file?")]
    text, problems = yamltree.decode(data, name)
    return (None, problems) if problems else yamltree.parse(text, name, Layer.FILE)


def _command_line(overrides: Mapping[tuple[str, ...], tuple[object, str]]) -> Table:
    entries: dict[str, Entry] = {}
    for path, (value, option) in overrides.items():
        insert(entries, path, from_value(value, Source(Layer.COMMAND_LINE, option)))
    return Table(entries, Source(Layer.COMMAND_LINE, "command line"))


def _check_references(config: Config, providers: Mapping[str, Provider], walker: Walker) -> None:
    """Whatever is named as an upstream must be one."""
    for _, path, name in walker.references:
        if name not in config.upstreams:
            walker.problem(path, upstreams.unknown(name, config.upstreams, providers))
    default = ("default_upstream",)
    if default not in walker.sources and config.default_upstream not in config.upstreams:
        walker.problem(default, upstreams.unknown(config.default_upstream, config.upstreams, providers))


def _readable_by_others(path: Path | None, secrets: SecretReader) -> list[str]:
    """A warning when the file holds secrets and is open to others."""
    lines = [node.source.line for node in secrets.literal if node.source.layer is Layer.FILE]
    if path is None or not lines or not mode(path) & _GROUP_OR_OTHERS:
        return []
    return [f"{path}:{lines[0]}: holds a secret and others can read the file; chmod 600 {path}"]


def _readable_keys(config: Config) -> list[str]:
    """A warning for each client certificate's file, key included, that is open to others."""
    files = {
        (path_text(("upstreams", name, "tls", "client_cert")), upstream.tls.client_cert)
        for name, upstream in config.upstreams.items()
        if upstream.tls.client_cert is not None
    }
    return [
        f"{key}: others can read {file}; chmod o= {file}"
        for key, file in sorted(files)
        if mode(file) & OTHERS
    ]


def _place(problem: Problem) -> tuple[bool, str, int]:
    """The order in which problems are told: the files' line by line, then the rest."""
    name, _, line = problem.source.rpartition(":")
    return (False, name, int(line)) if line.isdigit() else (True, problem.source, 0)
