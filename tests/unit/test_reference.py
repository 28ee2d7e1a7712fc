"""The documents that are made from the program say what the program does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmproxyd.config import reference, reflect
from llmproxyd.config.changes import FIXED
from llmproxyd.config.schema import Config
from llmproxyd.tap import Options

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "docs" / "configuration.rst").read_text()


# The configuration.


def keys_of(text: str) -> dict[str, str]:
    """The entries of a definition list, by their terms."""
    return dict(re.findall(r"(?m)^``([^`]+)``[^\n]*\n((?:    .*\n)+)", text))


def test_the_configuration_is_what_the_schema_says() -> None:
    assert reference.reference(Options) + "\n" == CONFIGURATION, f"write it anew:\n{reference.__doc__}"


def test_the_docstring_says_how_it_is_written_anew() -> None:
    assert reference.__doc__ is not None
    (code,) = re.findall(r"python -c '(.+)' ", reference.__doc__)
    written: list[str] = []
    exec(code, {"print": lambda text: written.append(f"{text}\n")})
    assert written == [CONFIGURATION]


def test_every_key_stands_there_once_and_no_other() -> None:
    found = re.findall(r"(?m)^``([a-z_]+(?:(?:\[\])?\.\w+)*)``$", CONFIGURATION)
    sections = set(re.findall(r"(?m)^([a-z_]+)\n=+$", CONFIGURATION))
    places = [".".join(place).replace(".[]", "[]") for place, _ in reflect.places(Config)]
    known = [place for place in places if not place.endswith(("[]", ".NAME", ".NAME.NAME"))]
    assert sorted(found) == sorted(place for place in known if place not in sections or place in found)
    assert sections >= set(known) & {one.name for one in Config.__dataclass_fields__.values()} - set(found)


def test_every_option_stands_there() -> None:
    for name, *_ in (*Options.optParameters, *Options.optFlags):
        assert re.search(rf"(?m)^``--{name}(=…)?``", CONFIGURATION), name


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("server.max_body", "(a size, 1 at least; default ``64MiB``)"),
        ("timeouts.first_content", "(a duration; default ``null``)"),
        ("faults.rules[].for", "(a duration, above 0; default ``null``)"),
        ("routes[].upstream", "(the name of an upstream; required)"),
        ("upstreams.NAME.api_keys", "(a list; items: a secret; default ``[]``)"),
        ("admin.token", "(a secret; default ``null``; *restart*)"),
        ("logging.level", "(debug, info, warn, error; default ``info``)"),
    ],
)
def test_kind_and_default_stand_with_the_key(key: str, said: str) -> None:
    assert " ".join(keys_of(CONFIGURATION)[key].split()).endswith(said)


def test_what_needs_a_restart_is_marked_and_nothing_else() -> None:
    for key, text in keys_of(CONFIGURATION).items():
        path = tuple(re.split(r"\.|(?=\[\])", key))
        fixed = any(path[: len(one)] == one for one in FIXED)
        assert not fixed or "*restart*" in text or reflect.is_table(kind_of(path)), key
        assert fixed or "*restart*" not in text, key


def kind_of(path: tuple[str, ...]) -> object:
    return dict(reflect.places(Config)).get(path)


def test_no_text_of_the_program_alone_is_left() -> None:
    assert not re.search(r":(class|meth|func|data|exc):|``None``|once loaded", CONFIGURATION)


def test_a_key_that_nobody_describes_is_an_error() -> None:
    @dataclass(frozen=True)
    class Silent:
        """Says nothing of its key."""

        key: int = 0

    assert reference.described(Silent) == {}
    with pytest.raises(LookupError, match="Silent does not say what key is for"):
        reference._about(Silent, reflect.Key("key", "key", int, False, 0), None)
