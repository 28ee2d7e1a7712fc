"""From files, environment and command line to one :class:`Config`, or to all that is wrong.

Layers: defaults, preset, file, environment, command line; the later ones win.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from llmproxyd.config import (
    env,
    gatewaycheck,
    idlekeys,
    imports,
    modebody,
    operators,
    placed,
    rehearsed,
    upstreams,
    variables,
    yamltree,
)
from llmproxyd.config.convert import Walker
from llmproxyd.config.crosscheck import crosscheck
from llmproxyd.config.destinations import DEFAULT_POLICY
from llmproxyd.config.folders import folders_of, state_folder
from llmproxyd.config.problems import ConfigError, Problem, did_you_mean, path_text, quoted
from llmproxyd.config.problems import Path as KeyPath
from llmproxyd.config.schema import Config
from llmproxyd.config.secret import OTHERS, SecretReader, mode
from llmproxyd.config.tree import Entry, Layer, Node, Scalar, Source, Table, from_value, insert
from llmproxyd.providers.base import Provider

__all__ = ["ConfigError", "Problem", "load", "presets", "state_folder"]

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
    written = _written(path, preset, environ, providers)
    names: dict[tuple[str, ...], Collection[str]] = {
        ("upstreams",): providers,
        ("resilience",): (DEFAULT_POLICY,),
    }
    settings, warnings = env.layer(environ, Config, written.layers, names)
    layers = [*written.layers, *written.exported, settings, _command_line(overrides)]
    folders = folders_of(environ, path)
    secrets = SecretReader(environ, folders)
    walker = Walker(Config, secrets, folders, written.theirs)
    config = walker.table(Config, layers, ())
    assert isinstance(config, Config)
    config = replace(config, upstreams=upstreams.complete(config.upstreams, providers, environ, walker))
    said = ("operator", "faults") in walker.sources and config.operator.faults is not None
    config = placed.filled(config, folders, faults_said=said)
    crosscheck(config, providers, walker)
    gatewaycheck.check(config, walker)
    config = replace(config, source=path, state_folder=state_folder(environ))
    rehearsed.check(config, walker)
    modebody.check(config, walker)
    problems = [*written.problems, *walker.problems]
    if problems:
        # What stands at one place of another program's file may be several keys of ours.
        raise ConfigError(sorted(dict.fromkeys(problems), key=_place))
    warnings = written.warnings + warnings + secrets.warnings
    warnings += _readable_by_others(path, secrets) + _readable_keys(config)
    warnings += idlekeys.warnings(config, walker) + operators.warnings(config.operator)
    return replace(
        config,
        preset=written.preset,
        imported=written.imported or (path is None and _listens_by_preset(walker)),
        warnings=tuple(warnings),
    )


def presets() -> list[str]:
    """The names that ``preset`` accepts."""
    folder = resources.files("llmproxyd.config") / "presets"
    names = [item.name for item in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


@dataclass
class _Written:
    """What stands in preset and file.

    :ivar layers: the weakest first.
    :ivar exported: what the variables set that the presets know.
    :ivar theirs: what another program's file calls our keys.
    """

    layers: list[Table] = field(default_factory=list)
    exported: list[Table] = field(default_factory=list)
    theirs: Mapping[KeyPath, KeyPath] = field(default_factory=dict)
    imported: bool = False
    preset: str | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _written(
    path: Path | None, preset: str | None, environ: Mapping[str, str], providers: Mapping[str, Provider]
) -> _Written:
    """What *preset* and the file at *path* say.

    :raises ConfigError: one of them was not understood as a whole, so that what it would have
        said is unknown.
    """
    found = _Written()
    problems = found.problems
    file = None if path is None else _table(_file(path), problems)
    names = [] if preset is None else [preset]
    if file is not None and (translation := imports.translated(file, providers)) is not None:
        file = translation.tree
        found.imported = True
        found.theirs = translation.names
        found.warnings += translation.warnings
        problems += translation.problems
        names = list(dict.fromkeys([translation.preset, *names]))
    found.preset = names[-1] if names else None
    for name in names:
        if (table := _table(_preset(name), problems)) is not None:
            below, above, wrong = variables.settings_of(table, environ)
            found.layers.append(below)
            found.exported.append(above)
            problems += wrong
    if file is not None:
        found.layers.append(file)
    if any(not problem.path for problem in problems):
        raise ConfigError(problems)
    return found


def _table(read: tuple[Node | None, list[Problem]], problems: list[Problem]) -> Table | None:
    """What was read, where it is a mapping; what is wrong with it goes onto *problems*."""
    node, wrong = read
    problems += wrong
    if isinstance(node, Table):
        return node
    if node is not None and not (isinstance(node, Scalar) and node.is_null):
        message = "the file must be a mapping of keys to values, such as `default_upstream: openai`"
        problems.append(Problem(str(node.source), "", message))
    return None


def _listens_by_preset(walker: Walker) -> bool:
    """Whether a preset, or a variable of the program that it stands in for, says where to listen."""
    source = walker.source(("listen",))
    if source is None or source.layer is Layer.COMMAND_LINE:
        return False
    return source.layer is Layer.PRESET or not source.name.startswith(f"environment {env.PREFIX}")


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
