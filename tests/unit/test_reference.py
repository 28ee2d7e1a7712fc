"""The documents that are made from the program say what the program does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest

from llmproxyd.config import reference, reflect
from llmproxyd.config.changes import FIXED
from llmproxyd.config.schema import Config
from llmproxyd.model import Request
from llmproxyd.options import Options
from llmproxyd.providers import reference as providers
from llmproxyd.providers.detect import Detector, facts_of
from llmproxyd.providers.registry import built_in

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "docs" / "configuration.rst").read_text()
PROVIDERS = (ROOT / "docs" / "providers.rst").read_text()


def run_as_documented(module: ModuleType) -> str:
    """What the command in the docstring of *module* prints."""
    (code,) = re.findall(r"python -c '(.+)' ", module.__doc__ or "")
    written: list[str] = []
    exec(code, {"print": lambda text: written.append(f"{text}\n")})
    return "".join(written)


# The configuration.


def keys_of(text: str) -> dict[str, str]:
    """The entries of a definition list, by their terms."""
    return dict(re.findall(r"(?m)^``([^`]+)``[^\n]*\n((?:    .*\n)+)", text))


def test_the_configuration_is_what_the_schema_says() -> None:
    assert f"{reference.reference(Options)}\n" == CONFIGURATION, reference.__doc__


def test_the_docstring_says_how_it_is_written_anew() -> None:
    assert run_as_documented(reference) == CONFIGURATION


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


# The providers.


def test_the_providers_are_what_is_known_of_them() -> None:
    assert f"{providers.reference()}\n" == PROVIDERS, providers.__doc__


def test_the_docstring_says_how_the_providers_are_written_anew() -> None:
    assert run_as_documented(providers) == PROVIDERS


def test_every_provider_has_a_section() -> None:
    titles = re.findall(r"(?m)^(.+)\n-+\n\n:Name: ``(\w+)``", PROVIDERS)
    assert sorted(titles) == sorted((one.title, one.name) for one in built_in())


def signs() -> list[tuple[str, str, bool]]:
    """Provider, one sign of it, and whether that is a key, in the table's order."""
    table = PROVIDERS[PROVIDERS.index("\nProvider  ") :].partition("\n\n")[0]
    rows = re.findall(r"(?m)^(\w+)  +(``.*|a key: .*)((?:\n {8,}.*)*)", table)
    return [
        (name.lower(), sign, first.startswith("a key: "))
        for name, first, rest in rows
        for sign in re.split(r"; *", " ".join(f"{first} {rest}".split()))
    ]


def example(sign: str) -> Request:
    """A request that shows *sign* and no other."""
    line, headers = "/somewhere", [(b"Host", b"127.0.0.1:8888")]
    for part in re.findall(r"``([^`]+)``", sign):
        text = part.replace("…", "x").replace("MODEL", "gemini-2.5-flash")
        name, colon, value = text.partition(": ")
        if colon:
            headers.append((name.encode(), value.encode()))
        else:
            line = text
    return Request(b"POST", line.encode(), headers)


def detected(sign: str, *, by_key: bool = True) -> str | None:
    found = Detector(built_in(), by_key=by_key).detect(facts_of(example(sign)))
    return None if found is None else found.name


def test_signs_are_found() -> None:
    assert len(signs()) > 45
    assert {name for name, _, _ in signs()} == {one.name for one in built_in() if one.signals}


@pytest.mark.parametrize(("name", "sign", "key"), signs())
def test_each_sign_is_one(name: str, sign: str, key: bool) -> None:
    assert detected(sign) == name
    assert (detected(sign, by_key=False) != name) is key


def test_of_two_signs_the_upper_one_holds() -> None:
    tried, together = 0, {sign for _, sign, _ in signs()}
    for (upper, one, _), (lower, other, _) in combinations(signs(), 2):
        requests = example(one), example(other)
        lines = [request.target for request in requests if request.target != b"/somewhere"]
        names = [name.lower() for request in requests for name, _ in request.headers[1:]]
        if upper == lower or len(lines) > 1 or len(set(names)) < len(names):
            continue
        if f"{other} and {one}" in together:
            continue
        headers = [requests[0].headers[0], *requests[0].headers[1:], *requests[1].headers[1:]]
        both = Request(b"POST", lines[0] if lines else b"/somewhere", headers)
        found = Detector(built_in()).detect(facts_of(both))
        assert found is not None
        assert found.name == upper, f"{one}, {other}"
        tried += 1
    assert tried > 400


def test_who_shows_no_sign_is_named() -> None:
    text = " ".join(PROVIDERS.partition("Nothing of these")[2].partition("\n\n")[0].split())
    assert [one.title for one in built_in() if not one.signals and one.title not in text] == []
