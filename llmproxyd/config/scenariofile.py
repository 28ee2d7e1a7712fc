"""Scenarios in files of their own: YAML, read as strictly as the configuration.

Everything that is wrong is reported together, each with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from llmproxyd.config import texts, yamltree
from llmproxyd.config.convert import Walker
from llmproxyd.config.folders import Folders
from llmproxyd.config.markers import check, normal
from llmproxyd.config.problems import ConfigError, Problem, did_you_mean, quoted
from llmproxyd.config.problems import Path as KeyPath
from llmproxyd.config.schema import Config
from llmproxyd.config.secret import SecretReader
from llmproxyd.config.tree import Entry, Layer, Listing, Node, Scalar, Table
from llmproxyd.faults import scenariotext as language
from llmproxyd.faults.language import LanguageError
from llmproxyd.faults.rules import Side
from llmproxyd.faults.scenario import Scenario, Scope, Step

MAX_FILE = 1024 * 1024
"""Bytes of a file."""

ReadBody = Callable[[str, Path], bytes]
"""The body in the file of this name within a folder; :exc:`ValueError` says why there is none."""

_STEP = 'a fault such as "r" or "cut at=3", or ok'


def _times(text: str) -> object:
    if text == "*":
        return text
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError('accepted: a whole number of requests, or "*" for all that follow')
    language.check_times(int(text))
    return text


def _seed(value: int) -> None:
    if value not in language.SEEDS:
        raise ValueError("accepted: a whole number of 18 digits at most")


@dataclass(frozen=True, slots=True)
class _Step:
    """One step, as written.

    :param fault: and how often, where ``times`` does not say so.
    """

    fault: Annotated[str, check(_STEP, language.parse_step)]
    times: Annotated[str, normal('a whole number of requests, or "*"', _times)] | None = None

    def step(self) -> Step:
        """What it means.

        :raises LanguageError: how often is said twice.
        """
        return language.parse_step(self.fault, self.times)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        try:
            self.step()
        except LanguageError as error:
            yield "times", str(error)


@dataclass(frozen=True, slots=True)
class _File:
    """The keys of a scenario's file."""

    steps: tuple[_Step, ...]
    name: Annotated[str, check(texts.RULE_NAME, language.check_name)] | None = None
    scope: Literal["all", "model", "test"] = "all"
    place: Literal["client", "upstream"] = "client"
    seed: Annotated[int, check("a whole number", _seed)] | None = None

    def scenario(self, name: str) -> Scenario:
        """What it means, under *name* where it has none."""
        return Scenario(
            name=self.name or name,
            steps=tuple(one.step() for one in self.steps),
            scope=Scope(self.scope),
            side=Side(self.place),
            seed=self.seed,
        )

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if not self.steps:
            yield "steps", "found no step; accepted: one at least"


def read(path: Path, upstreams: Collection[str], body: ReadBody) -> Scenario:
    """The scenario in the file at *path*.

    :param upstreams: the names that ``upstream=`` may have.
    :param body: reads what a ``body=`` names, beside the file.
    :raises ConfigError: with everything that is wrong.
    """
    name = str(path)
    text, problems = yamltree.decode(_data(path), name)
    node, wrong = (None, problems) if problems else yamltree.parse(text, name, Layer.FILE)
    if any(not problem.path for problem in wrong):
        raise ConfigError(wrong)
    return _Reading(path, upstreams, body, wrong).scenario(node)


class _Reading:
    """One file, being read.

    :param problems: what is wrong with it so far.
    """

    def __init__(
        self, path: Path, upstreams: Collection[str], body: ReadBody, problems: list[Problem]
    ) -> None:
        self._path = path
        self._upstreams = upstreams
        self._body = body
        self._problems = problems

    def scenario(self, node: Node | None) -> Scenario:
        """What the tree *node* means.

        :raises ConfigError: it cannot be meant.
        """
        name = str(self._path)
        if not isinstance(node, Table):
            message = 'the file must be a mapping of keys to values, such as `steps: ["r x2", "ok"]`'
            raise ConfigError([Problem(name if node is None else str(node.source), "", message)])
        tree, shorter = _spelled_out(node)
        folders = Folders(self._path.absolute().parent)
        walker = Walker(_File, SecretReader({}, folders), folders, shorter)
        file = walker.table(_File, [tree], ())
        steps = self._steps(tree, walker)
        problems = [*self._problems, *walker.problems]
        if problems or not isinstance(file, _File):
            raise ConfigError(sorted(dict.fromkeys(problems), key=_place))
        return replace(file.scenario(_name(self._path)), steps=steps)

    def _steps(self, tree: Table, walker: Walker) -> tuple[Step, ...]:
        """The steps of *tree* with the bodies of their faults; what is wrong with them goes to *walker*.

        Steps that are none have been reported already.
        """
        entry = tree.entries.get("steps")
        items = entry.value.items if entry is not None and isinstance(entry.value, Listing) else ()
        steps = []
        for index, item in enumerate(items):
            step = _step_of(item)
            if step is None:
                continue
            try:
                steps.append(_complete(step, self._path.absolute().parent, self._upstreams, self._body))
            except ValueError as error:
                walker.problem(("steps", index, "fault"), str(error))
        if len(steps) == len(items) and (wrong := language.problem(steps)) is not None:
            walker.problem(("steps", wrong[0]), wrong[1])
        return tuple(steps)


def complete(scenario: Scenario, folder: Path, upstreams: Collection[str], body: ReadBody) -> Scenario:
    """*scenario* with the bodies that its faults name, files in *folder*.

    :raises ValueError: one cannot be read, or a fault is for an upstream that is not there.
    """
    steps = []
    for number, step in enumerate(scenario.steps, 1):
        try:
            steps.append(_complete(step, folder, upstreams, body))
        except ValueError as error:
            raise ValueError(f"step {number}: {error}") from None
    return replace(scenario, steps=tuple(steps))


def _complete(step: Step, folder: Path, upstreams: Collection[str], body: ReadBody) -> Step:
    rule = step.rule
    if rule is None:
        return step
    upstream = rule.match.upstream
    if upstream is not None and upstream not in upstreams:
        hint, known = did_you_mean(upstream, list(upstreams)), ", ".join(upstreams)
        raise ValueError(f"found upstream={quoted(upstream)}, which is none{hint} (known: {known})")
    if rule.manner.file is None:
        return step
    manner = replace(rule.manner, body=body(rule.manner.file, folder))
    return replace(step, rule=replace(rule, manner=manner))


def within(path: Path, folder: Path) -> bool:
    """Whether *path* leads to a place in *folder*, symbolic links followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return False


def body_of(name: str, folder: Path) -> bytes:
    """What is in the file *name* within *folder*, for an answer.

    :raises ValueError: it cannot be used, with why.
    """
    path = folder / name
    if not within(path, folder):
        raise ValueError(f"found body={quoted(name)}, which leads out of {folder}")
    if path.exists() and not path.is_file():
        raise ValueError(f"found body={quoted(name)}, which is no file")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise ValueError(f"found body={quoted(name)}, which cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise ValueError(f"found body={quoted(name)}, which is longer than 1 MiB")
    return data


def folder_of(config: Config) -> Path:
    """Where the files stand that faults and scenarios name: beside the configuration."""
    return config.state_folder if config.source is None else config.source.absolute().parent


def _step_of(item: Node) -> Step | None:
    """The step that *item* is, if it is one."""
    if not isinstance(item, Table):
        return None
    given = {name: entry.value for name, entry in item.entries.items()}
    fault, times = given.get("fault"), given.get("times")
    if not isinstance(fault, Scalar):
        return None
    often = times.text if isinstance(times, Scalar) and not times.is_null else None
    try:
        return language.parse_step(fault.text, often)
    except ValueError:
        return None


def _spelled_out(table: Table) -> tuple[Table, Mapping[KeyPath, KeyPath]]:
    """*table* with every step as a mapping; and what the file itself calls those that were texts."""
    entry = table.entries.get("steps")
    if entry is None or not isinstance(entry.value, Listing):
        return table, {}
    items: list[Node] = []
    shorter: dict[KeyPath, KeyPath] = {}
    for index, item in enumerate(entry.value.items):
        if isinstance(item, Scalar):
            shorter["steps", index, "fault"] = ("steps", index)
            item = Table({"fault": Entry(item.source, item)}, item.source)
        items.append(item)
    steps = Entry(entry.source, Listing(tuple(items), entry.value.source))
    return Table({**table.entries, "steps": steps}, table.source), shorter


def _name(path: Path) -> str:
    """What a scenario is called that has no name: as its file."""
    try:
        language.check_name(path.stem)
    except LanguageError:
        return language.NAME
    return path.stem


def _data(path: Path) -> bytes:
    """What is in the file at *path*.

    :raises ConfigError: it cannot be read.
    """
    try:
        # Others would keep us waiting: a pipe, a device.
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ConfigError([Problem(str(path), "", "is no file")])
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except IsADirectoryError:
        message = "is a folder; name the file in it"
    except FileNotFoundError:
        message = "there is no such file"
    except (OSError, ValueError) as error:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        if len(data) <= MAX_FILE:
            return data
        message = "is longer than 1 MiB; is it the right file?"
    raise ConfigError([Problem(str(path), "", message)])


def _place(problem: Problem) -> tuple[str, int]:
    name, _, line = problem.source.rpartition(":")
    return (name, int(line)) if line.isdigit() else (problem.source, 0)
