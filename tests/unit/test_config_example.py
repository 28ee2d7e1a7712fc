"""``etc/llmproxyd.yaml`` and the schema say the same, both ways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_config import PROVIDERS

from llmproxyd.config import reflect
from llmproxyd.config.dump import dump
from llmproxyd.config.load import load
from llmproxyd.config.schema import Config
from llmproxyd.config.tree import Layer, Listing, Node, Scalar, Table
from llmproxyd.config.yamltree import parse
from llmproxyd.resilience.policy import Resilience

EXAMPLE = Path(__file__).parents[2] / "etc" / "llmproxyd.yaml"
TEXT = EXAMPLE.read_text()
COMMENT_OUT = re.compile(r"^( *)#(?=[^ #\n])", re.MULTILINE)
UNCOMMENTED = COMMENT_OUT.sub(r"\1", TEXT)
ENVIRON = {
    "MY_VLLM_KEY": "k",
    "FIRST_KEY": "a",
    "SECOND_KEY": "b",
    "PROXY_PASSWORD": "p",
    "COLLECTOR_TOKEN": "t",
    "HOME": "/h",
}
WITH_REDIS = {**ENVIRON, "LLMPROXYD_CACHE__REDIS_URL": "redis://localhost"}
"""For the examples, one of which sends events there."""


@pytest.fixture(autouse=True)
def page(tmp_path):
    """The file that an example names as the body of an answer."""
    (tmp_path / "page.html").write_text("<p>closed</p>")


def tree(text: str) -> Node:
    node, wrong = parse(text, "example", Layer.FILE)
    assert not wrong
    assert node is not None
    return node


def written(node: Node, kind: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places that *node* sets, with NAME and [] for what users name."""
    if reflect.is_json(kind):
        return
    kind = reflect.present(kind)
    pair = reflect.mapped(kind)
    if isinstance(node, Table):
        for name, entry in node.entries.items():
            here = (*above, "NAME" if pair is not None else name)
            below = pair[1] if pair is not None else reflect.keys(reflect.split(kind)[0])[name].kind
            yield here
            yield from written(entry.value, below, here)
    elif isinstance(node, Listing):
        for item in node.items:
            yield (*above, "[]")
            yield from written(item, reflect.listed(kind), (*above, "[]"))


def test_every_key_of_the_schema_stands_in_the_example_and_no_other():
    shown = set(written(tree(UNCOMMENTED), Config))
    assert shown - {place for place in shown if place[-1] in ("NAME", "[]")} == {
        place for place, _ in reflect.places(Config) if place[-1] not in ("NAME", "[]")
    }


def test_the_example_loads_to_the_defaults_without_a_warning():
    config = load(file=EXAMPLE, environ=ENVIRON, providers=PROVIDERS)
    plain = load(environ=ENVIRON, providers=PROVIDERS)
    # Logs and database stand beside the file, or in the state folder.
    assert config.logging.folder == EXAMPLE.parent / "logs"
    assert config.access.store.reveal() == f"sqlite:{EXAMPLE.parent}/llmproxyd.db"
    logging = replace(config.logging, folder=plain.logging.folder)
    errors = replace(config.error_logging, folder=plain.error_logging.folder)
    access = replace(config.access, store=plain.access.store)
    assert replace(config, logging=logging, error_logging=errors, access=access) == plain
    assert config.warnings == ()


def test_every_value_in_force_is_written_out():
    # Without this a key whose value is missing would pass as its default.
    defaults = tree(dump(load(environ=ENVIRON, providers=PROVIDERS)))
    shown = set(written(tree(TEXT), Config))
    assert set(written(defaults, Config)) <= shown


def test_the_examples_in_it_load_without_problems(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(UNCOMMENTED)
    file.chmod(0o600)
    config = load(file=file, environ=WITH_REDIS, providers=PROVIDERS)
    assert config.warnings == ()
    assert [route.upstream for route in config.routes] == ["my-vllm", "anthropic", "my-vllm"]
    assert [rule.error for rule in config.faults.rules] == [
        "rate_limit", "stall", "stream_error", "slow", "status", "wrong_length",
    ]  # fmt: skip
    assert [limit.rpm for limit in config.faults.limits] == [60]
    assert config.upstreams["my-vllm"].base_url == "http://localhost:8000"
    assert [one.to for one in config.events.dispatch] == ["file", "webhook", "redis"]
    assert config.cache.rules[0].upstream == "openai"


NESTED = [
    place
    for place, kind in reflect.places(Config)
    if place[:2] == ("upstreams", "NAME") and place[2:3] in [("tls",), ("pool",)] and len(place) == 4
]


@pytest.mark.parametrize("place", NESTED, ids=[".".join(place) for place in NESTED])
def test_what_the_examples_of_tls_and_pool_show_is_the_default(place, tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(UNCOMMENTED)
    shown = load(file=file, environ=WITH_REDIS, providers=PROVIDERS).upstreams["my-vllm"]
    plain = load(environ=ENVIRON, providers=PROVIDERS).upstreams["openai"]
    for part in place[2:]:
        shown, plain = getattr(shown, part), getattr(plain, part)
    assert shown == plain


POLICY = [
    place[2:]
    for place, _ in reflect.places(Config)
    if place[:2] == ("resilience", "NAME") and "[]" not in place
]


@pytest.mark.parametrize("place", POLICY, ids=[".".join(place) for place in POLICY])
def test_what_the_example_of_a_policy_shows_is_the_default(place, tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(UNCOMMENTED)
    shown = load(file=file, environ=WITH_REDIS, providers=PROVIDERS).resilience["default"]
    plain = Resilience(recategorize=shown.recategorize, hard_stop=shown.hard_stop)
    for part in place:
        shown, plain = getattr(shown, part), getattr(plain, part)
    assert shown == plain


def test_every_key_is_explained():
    # Each key stands below a comment, or below a key whose comment speaks for both.
    for number, line in enumerate(lines := TEXT.splitlines()):
        if re.match(r" *[a-z_]+:", line) and not re.match(r"[a-z_]+:$| *enabled:", line):
            assert re.match(r" *# ", lines[number - 1]), line
    assert isinstance(tree(TEXT), Table)
    assert not isinstance(tree(TEXT), Scalar)
