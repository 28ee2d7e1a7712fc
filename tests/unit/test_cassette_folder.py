"""The folder of recordings: whole files, in order, for one process at a time."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from test_cassette_format import EXCHANGE

from llmproxyd.cassettes.folder import Folder, Taken, load, name_of
from llmproxyd.cassettes.reading import Unusable
from llmproxyd.cassettes.writing import written

TEXT = written(EXCHANGE)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ((1, "openai", "chat", 200), "0001-openai-chat-200.yaml"),
        ((12345, "my-vllm", "count_tokens", 429), "12345-my-vllm-count_tokens-429.yaml"),
        ((2, "a/../b", "", 200), "0002-a_.._b-x-200.yaml"),
        ((3, "ü" * 50, "x" * 99, 200), f"0003-x-{'x' * 40}-200.yaml"),
    ],
)
def test_a_name_sorts_and_tells(parts: tuple[int, str, str, int], name: str) -> None:
    assert name_of(*parts) == name


def test_a_file_is_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a" / "b")
    before = os.umask(0)
    try:
        folder.write("0001-x.yaml", TEXT)
    finally:
        os.umask(before)
    file = folder.path / "0001-x.yaml"
    assert file.read_text() == TEXT
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert os.listdir(folder.path) == ["0001-x.yaml"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write("0001-x.yaml", TEXT)
    assert os.listdir(tmp_path) == []
    assert folder.files == 0


def test_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    for name in ("0007-x.yaml", "0003-x.yaml", "notes.yaml", "9999.txt", "0100"):
        (tmp_path / name).write_text("")
    folder = Folder(tmp_path)
    assert (folder.number(), folder.number(), folder.files) == (8, 9, 3)


def test_one_process_records_at_a_time(tmp_path: Path) -> None:
    first = Folder(tmp_path)
    with pytest.raises(Taken):
        Folder(tmp_path)
    first.close()
    Folder(tmp_path).close()


def test_what_a_killed_process_left_half_done_goes(tmp_path: Path) -> None:
    (tmp_path / ".0001-x.yaml.part").write_text("half")
    (tmp_path / ".keep").write_text("")
    Folder(tmp_path).close()
    assert os.listdir(tmp_path) == [".keep"]


def test_recordings_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10000-x.yaml", "0002-x.yaml", "mine.yaml", "0010-x.yaml", ".0001-x.yaml", "0003.txt"):
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "sub.yaml").mkdir()
    assert [one.name for one in load(tmp_path)] == ["0002-x.yaml", "0010-x.yaml", "10000-x.yaml", "mine.yaml"]


def test_the_mistakes_of_all_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "0001-x.yaml").write_text(TEXT.replace("whole: true", "whole: maybe"))
    (tmp_path / "0002-x.yaml").write_text(TEXT)
    (tmp_path / "0003-x.yaml").write_bytes(b"version: 1\n\xff")
    (tmp_path / "0004-x.yaml").write_text("[")
    with pytest.raises(Unusable) as caught:
        load(tmp_path)
    told = str(caught.value).splitlines()
    assert len(told) == 3
    assert told[0].startswith(f"{tmp_path}/0001-x.yaml:{TEXT.count(chr(10))}: response.whole:")
    assert told[1] == f"{tmp_path}/0003-x.yaml:2: not UTF-8"
    assert told[2].startswith(f"{tmp_path}/0004-x.yaml:")


def test_a_folder_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproxyd.cassettes.folder.MAX_TOTAL", len(TEXT.encode()))
    (tmp_path / "0001-x.yaml").write_text(TEXT)
    assert load(tmp_path)
    (tmp_path / "0002-x.yaml").write_text(TEXT)
    with pytest.raises(Unusable, match="more than"):
        load(tmp_path)
    monkeypatch.setattr("llmproxyd.cassettes.folder.MAX_FILE", len(TEXT.encode()) - 1)
    with pytest.raises(Unusable, match="is longer than"):
        load(tmp_path)


def test_a_recording_of_a_recording_is_the_same(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("0001-x.yaml", TEXT)
    (one,) = load(tmp_path)
    assert written(replace(one.exchange, recorded=EXCHANGE.recorded)) == TEXT
