"""The house: imports go down the list of rooms only, and what each room may not touch.

The list is that of design.md, top to bottom.  A module may import from its own room and from
any room below it; never from one above, and edges never from each other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ROOMS: tuple[tuple[str, ...], ...] = (
    ("twisted.plugins.llmproxyd_plugin",),
    ("llmproxyd.command",),
    ("llmproxyd.testing",),  # for tests, shipped; nothing below may use them
    ("llmproxyd.tap",),
    ("llmproxyd.options",),
    ("llmproxyd.service",),
    ("llmproxyd.systemd",),
    (
        "llmproxyd.administration",
        "llmproxyd.consoles",
        "llmproxyd.drain",
        "llmproxyd.greeting",
        "llmproxyd.pages",
        "llmproxyd.rehearsing",
        "llmproxyd.reload",
    ),
    ("llmproxyd.library",),
    ("llmproxyd.assembly",),  # what service and the library share: a pipeline and all that it needs
    ("llmproxyd.gateway",),
    ("llmproxyd.safety", "llmproxyd.ready"),  # helpers of service, as is listen
    ("llmproxyd.listen",),
    # Edges: side by side, none may import another one.
    ("llmproxyd.site", "llmproxyd.admin", "llmproxyd.operator", "llmproxyd.sandbox"),
    # Middle.
    ("llmproxyd.control",),
    ("llmproxyd.pipeline",),
    # Ports: side by side too.
    ("llmproxyd.cache", "llmproxyd.store", "llmproxyd.limits", "llmproxyd.cassettes", "llmproxyd.observe"),
    ("llmproxyd.config",),
    # Pure.
    ("llmproxyd.verdicts",),
    ("llmproxyd.access",),
    ("llmproxyd.resilience",),
    ("llmproxyd.language",),
    ("llmproxyd.faults",),
    ("llmproxyd.transform",),
    ("llmproxyd.inspection",),
    ("llmproxyd.providers",),
    ("llmproxyd.http",),
    # Bottom.
    ("llmproxyd.wire",),
    ("llmproxyd.redis",),
    (
        "llmproxyd.redaction",
        "llmproxyd.spellings",
        "llmproxyd.model",
        "llmproxyd.errors",
        "llmproxyd.units",
        "llmproxyd",
    ),
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}

PURE = (
    "verdicts",
    "access",
    "resilience",
    "language",
    "faults",
    "transform",
    "inspection",
    "providers",
    "http",
)
IMPURE = (
    "twisted.internet.reactor",
    "time",
    "random",
    "os",
    "socket",
    "secrets",
    "threading",
    "asyncio",
    "subprocess",
)
CLOCKS = (
    "time",
    "monotonic",
    "now",
    "utcnow",
    "today",
    "urandom",
    "random",
    "randrange",
    "randint",
    "choice",
)
TYPES_ALONE = {("llmproxyd.faults.choose", "random"), ("llmproxyd.faults.scenario", "random")}
"""Imports of a module of :data:`IMPURE` for the sake of a class that is passed in."""


@dataclass(frozen=True)
class Source:
    """One module of ours."""

    name: str
    path: Path

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(), str(self.path))

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


def sources() -> list[Source]:
    files = [*(ROOT / "llmproxyd").rglob("*.py"), *(ROOT / "twisted" / "plugins").glob("*.py")]
    found = []
    for path in sorted(files):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(Source(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


SOURCES = sources()
NAMES = {source.name for source in SOURCES}


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, within functions too.

    ``from a import b`` is ``a.b`` where that is a module of ours, else ``a`` and ``a.b`` both.
    """
    package = source.name if source.is_package else source.name.rpartition(".")[0]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                if full not in NAMES:
                    yield node.lineno, base
                yield node.lineno, full


def room_of(name: str) -> str | None:
    """The room that holds the module *name*, or a name imported from it; ``None`` for others."""
    if name == "llmproxyd":
        return name
    found = [room for room in FLOOR if room != "llmproxyd" and (name == room or name.startswith(room + "."))]
    return found[0] if found else None


def ours(name: str) -> bool:
    return name == "llmproxyd" or name.startswith("llmproxyd.")


def violations(source: Source) -> list[str]:
    """Each import of *source* that does not go down."""
    own = room_of(source.name)
    assert own is not None, f"{source.name} is in no room of the house"
    found = []
    for line, name in imports(source):
        if name not in NAMES and name.rpartition(".")[0] in NAMES - {"llmproxyd"}:
            name = name.rpartition(".")[0]  # a class or a function: its module is what counts
        if not ours(name) or (name == "llmproxyd" and source.name != "llmproxyd"):
            continue
        room = room_of(name)
        if room is None:
            found.append(f"{source.name}:{line} → {name}, which is in no room of the house")
        elif FLOOR[room] < FLOOR[own]:
            found.append(f"{source.name}:{line} → {name} goes up")
        elif FLOOR[room] == FLOOR[own] and room != own and FLOOR[own] != len(ROOMS) - 1:
            found.append(f"{source.name}:{line} → {name} goes across")
    return sorted(set(found))


def ids(source: Source) -> str:
    return source.name


def test_every_module_is_found() -> None:
    assert {
        "llmproxyd",
        "llmproxyd.tap",
        "llmproxyd.faults.choose",
        "twisted.plugins.llmproxyd_plugin",
    } <= NAMES
    assert len(SOURCES) > 90


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_every_module_is_in_a_room_of_the_house(source: Source) -> None:
    assert room_of(source.name) is not None


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_imports_go_down_only(source: Source) -> None:
    assert violations(source) == []


def test_bottom_modules_import_each_other_in_no_circle() -> None:
    bottom = {name for name in NAMES if room_of(name) in ROOMS[-1]}
    edges = {
        source.name: {name for _, name in imports(source) if name in bottom and name != "llmproxyd"}
        for source in SOURCES
        if source.name in bottom
    }
    while leaves := {name for name, needed in edges.items() if not needed & edges.keys()}:
        for name in leaves:
            del edges[name]
    assert edges == {}


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_tap_alone_imports_the_reactor(source: Source) -> None:
    found = [line for line, name in imports(source) if name.startswith("twisted.internet.reactor")]
    assert not found or source.name == "llmproxyd.tap"
    used = [
        node.lineno
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("internet.reactor")
    ]
    assert used == []


PURE_SOURCES = [
    source for source in SOURCES if source.name.startswith(tuple(f"llmproxyd.{room}" for room in PURE))
]


@pytest.mark.parametrize("source", PURE_SOURCES, ids=ids)
def test_pure_rooms_have_no_reactor_clock_or_random_of_their_own(source: Source) -> None:
    found = {
        (line, name)
        for line, name in imports(source)
        if any(name == one or name.startswith(one + ".") for one in IMPURE)
        and (source.name, name.partition(".")[0]) not in TYPES_ALONE
    }
    assert found == set()


@pytest.mark.parametrize("source", PURE_SOURCES, ids=ids)
def test_pure_rooms_read_no_clock_through_another_module(source: Source) -> None:
    called = {
        ast.unparse(node.func)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in CLOCKS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("datetime", "date", "time", "random", "os", "uuid", "secrets")
    }
    assert called == set()


def test_class_that_is_passed_in_is_made_nowhere_in_a_pure_room() -> None:
    """``Random`` is imported by the choice of faults for its type alone."""
    for name, _ in TYPES_ALONE:
        source = next(one for one in SOURCES if one.name == name)
        assert [name for _, name in imports(source) if name.startswith("random.")] == ["random.Random"]
        made = [
            node
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Random"
        ]
        assert made == []


@pytest.mark.parametrize("source", PURE_SOURCES, ids=ids)
def test_pure_rooms_do_no_input_or_output(source: Source) -> None:
    opened = [
        node.lineno
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("open", "print", "input")
    ]
    assert opened == []
    twisted = {name for _, name in imports(source) if name == "twisted" or name.startswith("twisted.")}
    assert not twisted or source.name == "llmproxyd.http.body"


@pytest.mark.parametrize("source", [source for source in SOURCES if source.is_package], ids=ids)
def test_package_holds_a_docstring_and_no_code(source: Source) -> None:
    tree = source.tree
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_plugin_is_one_service_maker() -> None:
    source = next(one for one in SOURCES if one.name == "twisted.plugins.llmproxyd_plugin")
    calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
    assert [ast.unparse(call.func) for call in calls] == ["ServiceMaker"]
    assert not (ROOT / "twisted" / "__init__.py").exists()
    assert not (ROOT / "twisted" / "plugins" / "__init__.py").exists()


# The test itself.


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        ("llmproxyd/http/x.py", "from llmproxyd.providers.base import JSON", "goes up"),
        ("llmproxyd/http/x.py", "def f():\n    import llmproxyd.tap", "goes up"),
        ("llmproxyd/http/x.py", "from ..pipeline import run", "goes up"),
        ("llmproxyd/faults/x.py", "if True:\n    from llmproxyd import control", "goes up"),
        ("llmproxyd/site/x.py", "from llmproxyd.operator import stdin", "goes across"),
        ("llmproxyd/model.py", "import llmproxyd.wire.agent", "goes up"),
        ("llmproxyd/site/x.py", "import llmproxyd.cellar", "in no room"),
        ("llmproxyd/faults/x.py", "from . import rules\nfrom llmproxyd.providers.base import JSON", None),
        ("llmproxyd/errors.py", "from llmproxyd.units import Size", None),
        ("llmproxyd/tap.py", "from llmproxyd.service import Daemon", None),
    ],
)
def test_walk_sees_every_form_of_import(tmp_path: Path, module: str, text: str, said: str | None) -> None:
    path = tmp_path / "x.py"
    path.write_text(text)
    source = Source(module.removesuffix(".py").replace("/", "."), path)
    found = violations(source)
    assert (found == []) if said is None else (said in found[0])
