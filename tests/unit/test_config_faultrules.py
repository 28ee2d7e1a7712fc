"""``faults.rules`` and ``faults.limits`` of a file: the same words as the operator's, checked as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmproxyd.config.dump import dump
from llmproxyd.config.load import load
from llmproxyd.config.problems import ConfigError
from llmproxyd.config.schema import Config
from llmproxyd.faults.language import SetFault, parse
from llmproxyd.faults.limits import Each, Limit
from llmproxyd.faults.rules import Match, Rule
from llmproxyd.providers.registry import registry


def loaded(folder: Path, *rules: str, limits: tuple[str, ...] = (), more: str = "") -> Config:
    lines = ["faults:", more, "  rules:", *(f"    - {rule}" for rule in rules)]
    lines += ["  limits:", *(f"    - {limit}" for limit in limits)]
    file = folder / "x.yaml"
    file.write_text("\n".join(lines) + "\n")
    return load(file=file, environ={"HOME": str(folder)}, providers=registry())


def problems(folder: Path, *rules: str, limits: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, *rules, limits=limits)
    return [str(one).removeprefix(f"{folder}/") for one in caught.value.problems]


SAME = [
    ("{name: x, error: cut, at: 3}", "cut * at=3"),
    ("{name: x, error: cut, at: tool, place: upstream, max: 2, for: 5m}", "cut * at=tool place=upstream max=2 for=5m"),
    ("{name: x, error: stall, for: 30s, ttl: 5m, when: 3}", "stall 3 for=30s ttl=5m"),
    ("{name: x, error: delay, for: 3s}", "delay * for=3s"),
    ("{name: x, error: never, for: 3s}", "never * for=3s"),
    ("{name: x, error: slow, per_event: 200ms, jitter: 20%}", "slow * per_event=200ms jitter=20%"),
    ("{name: x, error: slow, tokens_per_second: 20, first_token: 2s, jitter: 0.5}", "slow * tokens_per_second=20 first_token=2s jitter=0.5"),
    ("{name: x, error: stream-error, event: overloaded, at: 2}", "stream_error * error=overloaded at=2"),
    ("{name: x, error: stream_error}", "stream_error *"),
    ("{name: x, error: truncate, at: 50%bytes}", "truncate * at=50%bytes"),
    ("{name: x, error: reset, at: 1000B}", "reset * at=1000B"),
    ("{name: x, error: wrong_length}", "wrong_length *"),
    ("{name: x, error: wrong_length, length: -20}", "wrong_length * length=-20"),
    ("{name: x, error: status, status: 503, retry_after: 2}", "status=503 * retry_after=2"),
    ("{name: x, error: refuse, percent: 30, after: 2}", "refuse percent=30 after=2"),
    ("{name: x, error: rate_limit, percent: 100}", "r *"),
    ("{name: x, error: no_usage, upstream: openai, model: 'gpt*', stream: true}", "no_usage * upstream=openai model=gpt* stream=yes"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "line"), SAME)
def test_keys_mean_what_the_operators_line_does(written: str, line: str, tmp_path: Path) -> None:
    config = loaded(tmp_path, written)
    command = parse(line)
    assert isinstance(command, SetFault)
    (found,) = [rule.rule() for rule in config.faults.rules]
    members = {name: getattr(found, name) for name in Rule.__slots__ if name != "name"}
    assert Rule(name="mode", **members) == command.rule


@pytest.mark.parametrize(("written", "line"), SAME)
def test_what_is_printed_loads_to_the_same(written: str, line: str, tmp_path: Path) -> None:
    config = loaded(tmp_path, written, limits=("{name: a, tpm: 5, key: all, for: 2h}",))
    (tmp_path / "y.yaml").write_text(dump(config))
    again = load(file=tmp_path / "y.yaml", environ={"HOME": str(tmp_path)}, providers=registry())
    assert again.faults == config.faults


WRONG = [
    ("{name: x, error: cutt}", 'x.yaml:4: faults.rules[0].error: "cutt" is no kind of error; did you mean "cut"?'),
    ("{name: x, error: cut, at: nowhere}", 'faults.rules[0].at: found "nowhere"; accepted are start, tool, end'),
    ("{name: x, error: cut, att: 3}", 'faults.rules[0].att: unknown key; did you mean "at"?'),
    ("{name: x, error: cut, ttl: 3s}", 'faults.rules[0].ttl: "cut" has no such key (accepted: percent, max, after, for,'),
    ("{name: x, error: cut, retry_after: 3}", 'faults.rules[0].retry_after: "cut" has no such key'),
    ("{name: x, error: r, at: 3}", 'faults.rules[0].at: "r" has no such key'),
    ("{name: x, error: stall, status: 503}", 'faults.rules[0].status: "stall" has no such key'),
    ("{name: x, error: delay}", "faults.rules[0].for: delay needs for="),
    ("{name: x, error: slow}", "faults.rules[0].error: slow needs a pace"),
    ("{name: x, error: status}", "faults.rules[0].status: status needs a number"),
    ("{name: x, error: status, status: 99}", 'faults.rules[0].status: found "99"; accepted: a value 200 at least'),
    ("{name: x, error: status, status: 600}", "faults.rules[0].status: found 600; accepted: a status from 200 to 599"),
    ("{name: x, error: status, status: 503, body: gone.html}", "gone.html is missing; accepted: the path of a file"),
    ("{name: x, error: status, status: 503, body: x.yaml}", "a file whose name ends in .json, .html, .txt is accepted"),
    ("{name: x, error: wrong_length, length: 0}", "faults.rules[0].length: found 0; accepted: a number of bytes other than 0"),
    ("{name: x, error: r, percent: 5, when: 3}", 'faults.rules[0].percent: found beside when: "3"; accepted: one of them'),
    ("{name: x, error: r, percent: 0}", "faults.rules[0].percent: percent=0 never fires"),
    ("{name: x, error: r, percent: 101}", "faults.rules[0].percent: found 101; accepted: a number from 0 to 100"),
    ("{name: x, error: r, max: 0}", 'faults.rules[0].max: found "0"; accepted: a value 1 at least'),
    ("{name: x, error: stream_error, event: cut}", 'faults.rules[0].event: "cut" is no kind of error'),
    ("{name: x, error: slow, per_event: 1s, jitter: 120%}", "faults.rules[0].jitter:"),
    ("{name: x, error: cut, place: middle}", 'faults.rules[0].place: found "middle"; accepted: client, upstream'),
]  # fmt: skip


@pytest.mark.parametrize(("written", "said"), WRONG)
def test_what_is_wrong_is_told_once_with_its_place(written: str, said: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, written)
    assert problem.startswith("x.yaml:4: ")
    assert said in problem


def test_body_is_read_where_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "down.html").write_bytes(b"<p>down</p>")
    away = tmp_path / "away.json"
    away.write_bytes(b"{}")
    config = loaded(
        tmp_path,
        "{name: a, error: status, status: 503, body: pages/down.html}",
        f"{{name: b, error: status, status: 502, body: {away}}}",
    )
    first, second = [rule.rule().manner for rule in config.faults.rules]
    assert (first.body, first.media, first.file) == (b"<p>down</p>", "text/html; charset=utf-8", "down.html")
    assert (second.body, second.media) == (b"{}", "application/json")
    (tmp_path / "pages" / "down.html").write_bytes(b"x" * (1024 * 1024 + 1))
    (problem,) = problems(tmp_path, "{name: a, error: status, status: 503, body: pages/down.html}")
    assert "longer than 1 MiB" in problem


def test_limits_mean_what_they_say(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        limits=("{name: a, rpm: 60, tpm: 30000, upstream: openai, model: gpt-4*, key: all, for: 10m}", "{name: b, tpm: 5}"),
    )  # fmt: skip
    assert [limit.limit() for limit in config.faults.limits] == [
        Limit(name="a", rpm=60, tpm=30000, match=Match(upstream="openai", model="gpt-4*"), key=Each.ALL, lasts=600),
        Limit(name="b", tpm=5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("{name: a}", "faults.limits[0]: limits nothing; accepted: rpm, tpm or both"),
        ("{name: a, rpm: 0}", 'faults.limits[0].rpm: found "0"; accepted: a value 1 at least'),
        ("{name: a, rpm: 5, upstream: opnai}", 'did you mean "openai"?'),
        ("{name: a, rpm: 5, key: mine}", "accepted: each, all"),
        ("{rpm: 5}", "faults.limits[0].name: missing"),
    ],
)
def test_limit_that_is_wrong(limit: str, said: str, tmp_path: Path) -> None:
    assert any(said in problem for problem in problems(tmp_path, limits=(limit,)))


def test_two_limits_of_one_name(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, limits=("{name: a, rpm: 5}", "{name: a, rpm: 6}"))
    assert 'two limits have the name "a"' in problem


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("", 8 * 3600.0), ("  forget_after: 20m", 1200.0), ("  forget_after: null", None)],
)
def test_forget_after(written: str, seconds: float | None, tmp_path: Path) -> None:
    assert loaded(tmp_path, more=written).faults.forget_after == seconds


def test_body_of_the_mode_is_looked_for_at_once(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text('faults: {mode: "status=503 body=gone.html"}\n')
    with pytest.raises(ConfigError, match=r"faults.mode: found body=.*gone.html.*cannot be read"):
        load(file=tmp_path / "x.yaml", environ={"HOME": str(tmp_path)}, providers=registry())
    (tmp_path / "gone.html").write_text("<p>here</p>")
    load(file=tmp_path / "x.yaml", environ={"HOME": str(tmp_path)}, providers=registry())
