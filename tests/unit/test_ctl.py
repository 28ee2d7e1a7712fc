"""``llmproxyctl``: the verbs that need no daemon, its help, and how it shows things."""

from __future__ import annotations

import argparse
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.access.tokens import digest_of
from llmproxyd.admin.client import Place, checked_url
from llmproxyd.admin.ctl import main
from llmproxyd.admin.lines import run
from llmproxyd.admin.parser import parser
from llmproxyd.admin.socket import SYSTEM, candidates, unlocked
from llmproxyd.admin.starters import PROFILES, _hidden, shipped, unit
from llmproxyd.admin.verbs import _reference
from llmproxyd.config.endpoints import place
from llmproxyd.config.folders import state_folder
from llmproxyd.config.load import load
from llmproxyd.control.accessbodies import changed_project, token_settings
from llmproxyd.control.passwords import matches, password_line
from llmproxyd.control.tables import members, plain, table
from llmproxyd.language.access import SECTION as ACCESS
from llmproxyd.language.grammar import Table, Verb
from llmproxyd.language.table import TABLE
from llmproxyd.providers.registry import registry

ETC = Path(__file__).parents[2] / "etc"


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
    wanted |= {"verdicts", "scenario", "limit"}
    wanted |= {"config diff", "config reload"}
    wanted |= {"config show", "config check", "config import", "init", "passwd"}
    wanted |= {"wait-ready", "top", "diagnose", "completion"}
    assert names == wanted


def test_verb_that_the_language_has_is_a_verb_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    weather = Verb(words=("weather", "show"), about="Show 50% of the weather: rain", section="Weather")
    monkeypatch.setattr("llmproxyd.admin.parser.TABLE", Table((*TABLE.verbs, weather)))
    tree = parser()
    given = tree.parse_args(["weather", "show", "--json"])
    assert (given.handler, given.words, given.line, given.json) == (run, ("weather",), ["show"], True)
    assert "show 50% of the weather (show)" in tree.format_help()


@pytest.mark.parametrize(
    "verb", [one for one in TABLE.verbs if one.section == ACCESS and one.options], ids=lambda verb: verb.name
)
def test_options_about_projects_and_tokens_are_those_of_the_language(verb: Verb) -> None:
    (here,) = [one for one in VERBS if one.prog == f"llmproxyctl {verb.name}"]
    options = {name for action in here._actions for name in action.option_strings}
    assert {one.name for one in verb.options} <= options


def test_what_is_not_given_is_not_changed() -> None:
    given = parser().parse_args(
        ["project", "update", "a", "--rpm", "none", "--allow-param", "none", "--name", "b"]
    )
    assert changed_project(vars(given)) == {"limits": {"rpm": None}, "allow": {"params": {}}, "name": "b"}
    given = parser().parse_args(
        ["token", "update", "a", "--expires", "never", "--scope", "none", "--tpm", "7"]
    )
    assert token_settings(vars(given)) == {"expires": None, "scopes": [], "limits": {"tpm": 7}}
    assert changed_project(vars(parser().parse_args(["project", "update", "a"]))) == {}
    assert token_settings(vars(parser().parse_args(["token", "create", "--project", "a"]))) == {}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with tempfile.TemporaryDirectory(prefix="ctl-") as short:  # what a socket's path must be
        monkeypatch.setenv("XDG_STATE_HOME", short)
        yield tmp_path


@pytest.mark.parametrize("profile", PROFILES)
def test_init_writes_a_configuration_that_loads_without_warnings(folder: Path, profile: str) -> None:
    assert main(["init", profile]) == 0
    file = folder / "llmproxyd.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config = load(file=file, environ={"HOME": str(folder)}, providers=registry())
    assert config.warnings == ()
    assert all("127.0.0.1" in one or "::1" in one.replace("\\", "") for one in config.listen)
    assert config.access.enabled == (profile == "team")
    assert config.admin.token is not None
    assert len(config.admin.token.reveal()) >= 32
    if profile == "team":
        assert config.cache.enabled
        assert config.admin.listen is None
        return
    # llmproxyctl looks there by itself.
    path = state_folder(os.environ) / "admin.sock"
    assert path in candidates(os.environ, state_folder(os.environ))
    assert config.admin.listen is not None
    assert place(config.admin.listen).name == str(path)
    # The daemon makes its folder, and takes away what a dead one left there.
    assert unlocked(config.admin.listen) == path


def test_init_writes_what_the_presets_do(folder: Path) -> None:
    for profile, preset in (("sillytavern", "sillytavern"), ("venice", "venice")):
        file = folder / f"{profile}.yaml"
        assert main(["init", profile, str(file)]) == 0
        ours = load(file=file, environ={"HOME": str(folder)}, providers=registry())
        theirs = load(preset=preset, environ={"HOME": str(folder)}, providers=registry())
        assert ours.resilience["default"].retry == theirs.resilience["default"].retry
        assert ours.resilience["default"].breaker == theirs.resilience["default"].breaker
        assert ours.server.path_prefix == theirs.server.path_prefix
        assert {one.split(":")[1] for one in ours.listen} == {one.split(":")[1] for one in theirs.listen}
        if profile == "venice":
            assert ours.upstreams["venice"].transform == theirs.upstreams["venice"].transform
            assert ours.upstreams["venice"].base_url == theirs.upstreams["venice"].base_url
            assert ours.timeouts == theirs.timeouts


def test_each_init_has_a_token_of_its_own(folder: Path) -> None:
    tokens = set()
    for name in ("a.yaml", "b.yaml"):
        assert main(["init", "goose", name]) == 0
        config = load(file=folder / name, environ={"HOME": str(folder)}, providers=registry())
        tokens.add(config.admin.token)
    assert len(tokens) == 2


@pytest.mark.parametrize("profile", PROFILES)
def test_init_for_systemd_writes_the_unit_and_keeps_the_token_out_of_the_configuration(
    folder: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", profile, "--systemd"]) == 0
    told = capsys.readouterr().out
    token = (folder / "llmproxyd.admin_token").read_text().strip()
    assert token not in (folder / "llmproxyd.yaml").read_text() + told
    assert stat.S_IMODE((folder / "llmproxyd.admin_token").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "llmproxyd.service").stat().st_mode) & 0o022 == 0
    environ = {
        "CREDENTIALS_DIRECTORY": str(folder),
        "STATE_DIRECTORY": "/var/lib/llmproxyd",
        "LOGS_DIRECTORY": "/var/log/llmproxyd",
        "RUNTIME_DIRECTORY": "/run/llmproxyd",
    }
    config = load(file=folder / "llmproxyd.yaml", environ=environ, providers=registry())
    assert config.warnings == ()
    assert config.admin.token is not None
    assert config.admin.token.reveal() == token
    if config.admin.listen is not None:
        assert place(config.admin.listen).name == str(SYSTEM)
    if config.logging.enabled:
        assert config.logging.folder == Path("/var/log/llmproxyd")
        assert config.error_logging.folder == Path("/var/log/llmproxyd/errors")
    for words in ("/etc/llmproxyd/llmproxyd.yaml", "/etc/credstore/llmproxyd.admin_token", "daemon-reload"):
        assert words in told
    unit = (folder / "llmproxyd.service").read_text()
    assert "--no-stdin --config /etc/llmproxyd/llmproxyd.yaml\n" in unit
    assert "LoadCredential=llmproxyd.admin_token\n" in unit


def test_unit_that_is_shipped_is_that_of_etc() -> None:
    assert shipped("llmproxyd.service") == (ETC / "llmproxyd.service").read_text()


def test_unit_starts_the_command_of_this_installation_where_a_service_can_see_it() -> None:
    assert unit(Path("/usr/bin/env")) == shipped("llmproxyd.service").replace(
        "ExecStart=/opt/llmproxyd/bin/llmproxyd ", "ExecStart=/usr/bin/env "
    )
    for command in ("/home/alice/bin/llmproxyd", "/tmp/venv/bin/llmproxyd", "/opt/my apps/llmproxyd"):
        assert _hidden(Path(command))
    assert not _hidden(Path("/usr/local/bin/llmproxyd"))
    assert unit(Path("/nowhere/llmproxyd")) == shipped("llmproxyd.service")


def test_init_without_a_profile_is_for_a_team(folder: Path) -> None:
    for words in ([], ["x.yaml"], ["team", "y.yaml"]):
        assert main(["init", *words]) == 0
    texts = [(folder / name).read_text() for name in ("llmproxyd.yaml", "x.yaml", "y.yaml")]
    assert all("for a team" in text for text in texts)
    assert "llmproxyd --config x.yaml" in texts[1]


def test_profile_that_is_misspelt_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["gose"], ["gose", "x.yaml"]):
        assert main(["init", *words]) == 2
        assert 'did you mean "goose"?' in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_socket_whose_path_is_too_long_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", f"/{'x' * 100}")
    assert main(["init", "goose"]) == 2
    assert "XDG_STATE_HOME" in capsys.readouterr().err
    assert main(["init", "team"]) == 0


def test_init_writes_all_files_or_none(folder: Path) -> None:
    (folder / "llmproxyd.service").write_text("mine")
    assert main(["init", "team", "--systemd"]) == 1
    assert [one.name for one in folder.iterdir()] == ["llmproxyd.service"]
    assert (folder / "llmproxyd.service").read_text() == "mine"
    assert main(["init", "team", "nowhere/x.yaml"]) == 1


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
