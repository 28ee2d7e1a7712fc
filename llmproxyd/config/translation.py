"""Another program's file on its way to a tree of ours.

Every value keeps the line that it stands on, and every key of ours knows what the file called
it, so that mistakes are told in the file's own terms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from llmproxyd.config.problems import Path, Problem, path_text
from llmproxyd.config.tree import Entry, Listing, Node, Scalar, Source, Table, insert

_YES = frozenset({"true", "yes", "on", "y"})
_NO = frozenset({"false", "no", "off", "n"})


@dataclass
class Import:
    """A file under translation, and what has become of it.

    :ivar preset: name of the preset that it stands on.
    :ivar names: what the file called a key, by our path.
    :ivar warnings: what was not understood, with its place.
    """

    preset: str
    source: Source
    entries: dict[str, Entry] = field(default_factory=dict)
    names: dict[Path, Path] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def tree(self) -> Table:
        """The file as one of ours."""
        return Table(self.entries, self.source)

    def put(self, ours: tuple[str, ...], theirs: Path, value: Node) -> None:
        """Let *value*, which stands at *theirs*, be the value of *ours*."""
        insert(self.entries, ours, value)
        self.names[ours] = theirs

    def wrong(self, node: Node, theirs: Path, message: str) -> None:
        """Report what stands at *theirs*."""
        self.problems.append(Problem(str(node.source), path_text(theirs), message))

    def warn(self, source: Source, theirs: Path, message: str) -> None:
        """Note what could not be taken over."""
        self.warnings.append(f"{source}: {path_text(theirs)}: {message}")

    def ignore(self, entry: Entry, theirs: Path) -> None:
        """Note a key that means nothing here."""
        self.warn(entry.source, theirs, "ignored, as llmproxyd knows no such key of this file")

    def section(self, table: Table, key: str) -> Table | None:
        """The mapping at the top-level *key*; none where nothing is there, or something else."""
        if key not in table.entries or is_null(node := table.entries[key].value):
            return None
        if not isinstance(node, Table):
            self.wrong(node, (key,), f"found {class_of(node)}; accepted: a mapping")
            return None
        return node

    def copy(
        self, table: Table, theirs: Path, ours: tuple[str, ...], *, known: Iterable[str], flags: Iterable[str]
    ) -> None:
        """Take over the *known* keys and the *flags* (true or false) of a section; warn of others."""
        known, flags = set(known), set(flags)
        for name, entry in table.entries.items():
            here = (*theirs, name)
            if is_null(entry.value):
                continue
            if name in flags:
                self.put((*ours, name), here, flag(entry.value))
            elif name in known:
                self.put((*ours, name), here, entry.value)
            else:
                self.ignore(entry, here)


def flag(node: Node) -> Node:
    """*node* with the words that YAML 1.1 took for true and false in our spelling."""
    if isinstance(node, Scalar) and node.plain:
        word = node.text.lower()
        if word in _YES | _NO:
            return Scalar(str(word in _YES).lower(), node.source)
    return node


def is_null(node: Node) -> bool:
    """Whether *node* says nothing."""
    return isinstance(node, Scalar) and node.is_null


def class_of(node: Node) -> str:
    """*node* in words that show nothing of it."""
    if isinstance(node, Listing):
        return "a list"
    return "a mapping" if isinstance(node, Table) else "a text"
