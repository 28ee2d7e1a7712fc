"""``llmproxyctl``: the verbs that need no daemon, its help, and how it shows things."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.access.tokens import digest_of
from llmproxyd.admin.client import Place, checked_url
from llmproxyd.admin.ctl import main
from llmproxyd.admin.parser import parser
from llmproxyd.control.tables import members, plain, table
from llmproxyd.admin.verbs import _reference
from llmproxyd.config.load import load
from llmproxyd.control.passwords import matches, password_line
from llmproxyd.providers.registry import registry


def verbs(tree: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    below = [action for action in tree._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield tree
    for action in below:
        for one in action.choices.values():
            yield from verbs(one)


VERBS = list(verbs(parser()))


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.prog)
def test_every_verb_has_help_with_an_example_that_is_valid(verb: argparse.ArgumentParser) -> None:
    text = verb.format_help()
    examples = [line.strip() for line in text.splitlines() if line.startswith("  llmproxyctl ")]
    assert examples
    assert "exit status" in text
    import shlex

    for example in examples:
        words = shlex.split(example, comments=True)
        if ">" in words or ">>" in words:
            words = words[: min(words.index(sign) for sign in (">", ">>") if sign in words)]
        assert parser().parse_args(words[1:]).handler


def test_there_are_all_verbs() -> None:
    names = {verb.prog.removeprefix("llmproxyctl ") for verb in VERBS}
    both = {"list", "show", "update", "activate", "deactivate", "delete", "rotate", "create"}
    wanted = {f"project {one}" for one in both} | {f"token {one}" for one in both | {"revoke"}}
    wanted |= {"status", "usage", "cache stats", "cache purge", "fault", "breaker", "test", "key rotate"}
    wanted |= {"run", "requests", "explain", "upstream", "connections", "version", "log", "shutdown"}
    wanted |= {"config diff", "config reload"}
    wanted |= {"config show", "config check", "config import", "init", "passwd"}
    assert names == wanted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_writes_a_configuration_that_loads_with_access_on(folder: Path) -> None:
    assert main(["init"]) == 0
    file = folder / "llmproxyd.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config = load(file=file, environ={}, providers=registry())
    assert config.access.enabled
    assert config.cache.enabled
    assert config.warnings == ()
    assert all("127.0.0.1" in one for one in config.listen)


def test_init_overwrites_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "x.yaml"
    file.write_text("mine")
    assert main(["init", str(file)]) == 1
    assert file.read_text() == "mine"
    assert "nothing was written" in capsys.readouterr().err
    (folder / "link.yaml").symlink_to(folder / "target")
    assert main(["init", "link.yaml"]) == 1
    assert not (folder / "target").exists()


def test_config_check_tells_all_problems(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "x.yaml"
    file.write_text("lisen: x\ntimeouts: {connect: never}\n")
    assert main(["config", "check", str(file)]) == 1
    told = capsys.readouterr().err
    assert "x.yaml:1" in told
    assert "x.yaml:2" in told
    file.write_text("default_upstream: anthropic\n")
    assert main(["config", "check", str(file)]) == 0
    assert "is valid" in capsys.readouterr().out
    assert main(["config", "check", str(folder / "missing")]) == 1


def test_config_import_prints_what_loads_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "theirs.yaml"
    file.write_text('target_proxy:\n  url: "http://127.0.0.1:1/v1"\n  api_key: sk-abcdefghijklmnop\n')
    assert main(["config", "import", str(file)]) == 0
    told = capsys.readouterr()
    assert "sk-abcdefghijklmnop" not in told.out + told.err
    ours = folder / "ours.yaml"
    ours.write_text(told.out)
    assert load(file=ours, environ={}, providers=registry()).upstreams


def test_passwd_prints_a_line_that_lets_in(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("secret word\n"))
    assert main(["passwd", "alice"]) == 0
    line = capsys.readouterr().out
    assert matches(line, "alice", "secret word")
    assert not matches(line, "alice", "secret")
    assert not matches(line, "bob", "secret word")
    assert "secret" not in line


@pytest.mark.parametrize("user", ["", "a:b", "a b", "x" * 65, "ü"])
def test_name_that_no_line_can_have_is_refused(user: str) -> None:
    with pytest.raises(ValueError):
        password_line(user, "x", b"0" * 16)


@pytest.mark.parametrize(
    "line",
    ["", "alice", "alice:x", "alice:$scrypt$ln=63,r=8,p=1$AAAA$AAAA", "alice:$scrypt$ln=0,r=0,p=0$A$A"],
)
def test_broken_line_lets_nobody_in(line: str) -> None:
    assert not matches(line, "alice", "x")


@pytest.mark.parametrize(
    "text", ["ftp://x", "http://", "x", "http://u@h", "http://h/path", "http://h:99999", "http://h?q=1"]
)
def test_url_that_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        checked_url(text)


def test_token_in_clear_is_noticed() -> None:
    assert Place(url="http://gateway.example.com", token="t").in_clear
    assert not Place(url="https://gateway.example.com", token="t").in_clear
    assert not Place(url="http://127.0.0.1:1", token="t").in_clear
    assert not Place(url="http://gateway.example.com").in_clear


def test_table_is_aligned() -> None:
    assert table(("A", "COUNT"), [("x", 5), ("long", 1000)], right=(1,)) == (
        "A     COUNT\nx         5\nlong   1000"
    )


@given(st.text())
def test_what_is_shown_moves_no_terminal(text: str) -> None:
    assert plain(text).isprintable()
    assert all(line.isprintable() for line in members({text: {"a": text, "b": [text]}}).split("\n"))


def test_token_itself_stands_in_no_url() -> None:
    token = "sk-0123456789abcdefghijkl"
    assert _reference(token) == f"sha256:{digest_of(token).hex()}"
    assert _reference("tok_abc") == "tok_abc"
