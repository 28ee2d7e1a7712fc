"""YAML is read strictly, and never with the surprises of YAML 1.1."""

from __future__ import annotations

import pytest
from test_config import load_text, problems

from llmproxyd.config.tree import Layer, Listing, Scalar, Table
from llmproxyd.config.yamltree import parse


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "---\n", "---\n...\n", "null", "~", "{}", "\ufeff"]
)
def test_an_empty_file_sets_nothing(tmp_path, text):
    assert load_text(tmp_path, text).timeouts.connect == 10.0


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    assert load_text(tmp_path, b"\xef\xbb\xbflogging: {level: warn}").logging.level == "warn"


@pytest.mark.parametrize(
    "text", ["no", "on", "012", "1:30", "2001-12-14", "0x1F", "1e3", "true", "=", "'null'", '"~"', "1_000"]
)
def test_a_text_stays_the_text_that_was_written(tmp_path, text):
    config = load_text(tmp_path, f"faults: {{rules: [{{name: {text}, error: c}}]}}")
    assert config.faults.rules[0].name == text.strip("'\"")


SYNTAX = [
    ("a: 1\na: 2\n", "x.yaml:2: a: duplicate key; it stands on line 1 already"),
    ("timeouts:\n  idle: 1\n  'idle': 2\n", "x.yaml:3: timeouts.idle: duplicate key"),
    ("timeouts: {idle: 1}\n---\ntimeouts: {idle: 1}\n", "x.yaml:2: a second document"),
    ("faults: !!python/object/apply:os.system [id]", 'tags are not accepted, found "!!python/object'),
    ("faults: {seed: !!int 3}", 'x.yaml:1: faults.seed: tags are not accepted, found "!!int"'),
    ("faults: {mode: ! n}", "tags are not accepted"),
    ("timeouts:\n\tidle: 1\n", "x.yaml:2:1: not YAML: "),
    ("timeouts:\n\tidle: 1\n", "spaces, not with tabs"),
    ("listen: [1, 2", "x.yaml:1:14: not YAML: while parsing a flow sequence"),
    ("timeouts:\n  idle: 1\n headers: 2\n", "x.yaml:3:2: not YAML"),
    ("a: *b", "x.yaml:1: a: no anchor &b stands before this alias"),
    ("a: &b [*b]", "no anchor &b"),
    ("when: *", 'a text that starts with * or & stands in quotes: "*"'),
    ("? [a]\n: 1\n", "x.yaml:1: a key must be a text"),
    ("<<: 3\n", "a merge key (<<) takes a mapping"),
    ("a: '\x01'", "x.yaml:1: not YAML: the character U+0001 is not allowed"),
    ('x: 1\na: "\\UFFFFFFFF"', "x.yaml:2: not YAML: an escape or a number beyond all bounds"),
    ('x: 1\na: "\\U00110000"', "x.yaml:2: not YAML: an escape or a number beyond all bounds"),
    ('a: "\\ud800"', "half a surrogate pair"),
    (b"a: 1\nb: \xff\n", "x.yaml:2: byte 0xff is not UTF-8; save the file as UTF-8"),
    ("a: 1".encode("utf-16"), "x.yaml: the file is UTF-16; save it as UTF-8"),
    ("[" * 100, "nested more than 30 levels deep"),
    ("{" * 100, "nested more than 30 levels deep"),
    ("? " * 100, "nested more than 30 levels deep"),
    ("- " * 100, "nested more than 30 levels deep"),
    ("a: [" + "1," * 30_000 + "]", "more than 20000 settings"),
]


@pytest.mark.parametrize(("text", "expected"), SYNTAX, ids=[str(number) for number in range(len(SYNTAX))])
def test_what_is_not_strict_yaml_is_reported_with_its_line(tmp_path, text, expected):
    assert any(expected in line for line in problems(tmp_path, text)), problems(tmp_path, text)


def test_anchors_aliases_and_merge_keys_are_understood(tmp_path):
    text = (
        "upstreams:\n"
        "  a: &base\n"
        "    provider: openai\n"
        "    pool: {max_idle: 3}\n"
        "  b:\n"
        "    <<: *base\n"
        "    provider: anthropic\n"
        "  c: *base\n"
        "  d: {<<: [{provider: anthropic}, *base], base_url: http://d}\n"
    )
    upstreams = load_text(tmp_path, text).upstreams
    assert [upstreams[name].provider for name in "abcd"] == ["openai", "anthropic", "openai", "anthropic"]
    assert [upstreams[name].pool.max_idle for name in "abcd"] == [3, 3, 3, 3]


def test_a_quoted_merge_key_is_a_key(tmp_path):
    assert "unknown key" in problems(tmp_path, "'<<': {a: 1}")[0]


def test_aliases_count_as_often_as_they_are_used(tmp_path):
    text = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
    text += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert any("more than 20000 settings" in line for line in problems(tmp_path, text))


def test_every_node_knows_its_line_and_whether_it_was_quoted():
    tree, wrong = parse("a: 1\nb:\n  - 'x'\n", "f", Layer.FILE)
    assert not wrong
    assert isinstance(tree, Table)
    assert str(tree.entries["b"].source) == "f:2"
    listing = tree.entries["b"].value
    assert isinstance(listing, Listing)
    (item,) = listing.items
    assert isinstance(item, Scalar)
    assert (item.text, item.plain, str(item.source)) == ("x", False, "f:3")
