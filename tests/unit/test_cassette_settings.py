"""Where recordings are made and read, as the configuration and the command line say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_config import PROVIDERS

from llmproxyd.config.cassettes import NOWHERE, Record, Replay, recorded_to, with_recorded
from llmproxyd.config.changes import held
from llmproxyd.config.load import ConfigError, load
from llmproxyd.config.schema import Config
from llmproxyd.options import Options


def loaded(*arguments: str) -> Config:
    options = Options()
    options.parseOptions([*arguments])
    return options.config


def test_nothing_is_recorded_or_replayed_unless_asked_for() -> None:
    config = loaded()
    assert (config.record.folder, config.replay.folder) == (None, None)
    assert recorded_to(config.record, config.replay) is None


def test_the_command_line_names_folders_from_where_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    assert loaded("--record", "a").record.folder == tmp_path / "a"
    replay = loaded("--replay", "b", "--speed", "2.5", "--on-miss", "forward").replay
    assert (replay.folder, replay.speed, replay.on_miss) == (tmp_path / "b", 2.5, "forward")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--speed", "2"), "--speed says how to replay; add --replay DIR"),
        (("--on-miss", "forward"), "there is no replay.folder in which something could be missing"),
    ],
)
def test_how_to_replay_says_nothing_where_nothing_is_replayed(
    given: tuple[str, str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        loaded(*given)
    assert told in capfd.readouterr().err


def test_a_file_names_folders_from_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("record: {folder: tapes}\n")
    assert load(file=file, environ={}, providers=PROVIDERS).record.folder == tmp_path / "tapes"


@pytest.mark.parametrize("speed", ["-1", "0.001", "nan", "inf", "fast", "1e-300"])
def test_a_speed_that_is_none_is_refused(speed: str, tmp_path: Path) -> None:
    overrides = {("replay", "folder"): (str(tmp_path), "x"), ("replay", "speed"): (speed, "--speed")}
    with pytest.raises(ConfigError, match=r"--speed: replay\.speed"):
        load(environ={}, overrides=overrides, providers=PROVIDERS)


def test_recordings_of_misses_go_to_the_folder_that_is_replayed_or_another() -> None:
    here, there = Path("/here"), Path("/there")
    assert recorded_to(Record(here), Replay()) == here
    assert recorded_to(Record(), Replay(there, on_miss="record")) == there
    assert recorded_to(Record(here), Replay(there, on_miss="record")) == here
    assert recorded_to(Record(), Replay(there, on_miss="forward")) is None


def test_a_folder_that_is_not_there_yet_may_be_recorded_to(tmp_path: Path) -> None:
    assert loaded("--record", str(tmp_path / "a" / "b")).record.folder == tmp_path / "a" / "b"
    config = loaded("--replay", str(tmp_path / "a"), "--on-miss", "record")
    assert config.replay.folder == tmp_path / "a"
    assert not (tmp_path / "a").exists()


def test_only_a_restart_changes_them() -> None:
    before = load(environ={}, providers=PROVIDERS)
    after = replace(before, record=Record(Path("/x")), replay=Replay(speed=2))
    assert held(before, after) == (before, ["record", "replay"])


def test_a_provider_without_an_address_has_one_where_recordings_answer_for_it() -> None:
    known = load(environ={}, providers=PROVIDERS).upstreams
    found = with_recorded(known, ["openai", "databricks"])
    assert found["openai"] is known["openai"]
    assert (found["databricks"].provider, found["databricks"].base_url) == ("databricks", NOWHERE)
