"""Scenarios in files: everything that is wrong is told at once, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmproxyd.config.load import ConfigError, load
from llmproxyd.config.rehearsed import of_config
from llmproxyd.config.scenariofile import body_of, read
from llmproxyd.faults.rules import Side
from llmproxyd.faults.scenario import Scenario, Scope
from llmproxyd.faults.scenariotext import line_of, parse_asked
from llmproxyd.providers.registry import registry

UPSTREAMS = ("openai", "anthropic")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "calls.yaml"


def of(file: Path, text: str) -> Scenario:
    file.write_text(text)
    return read(file, UPSTREAMS, body_of)


def wrong(file: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        of(file, text)
    return [str(one).replace(str(file), "FILE") for one in refused.value.problems]


WHOLE = """\
name: outage
scope: test
place: upstream
seed: 7
steps:
  - r x2
  - ok
  - {fault: "cut at=3", times: 5}
  - {fault: error overloaded}
  - fault: r
    times: "*"
"""


def test_every_key_is_read(file: Path) -> None:
    scenario = of(file, WHOLE)
    assert (scenario.name, scenario.scope, scenario.side, scenario.seed) == (
        "outage",
        Scope.TEST,
        Side.UPSTREAM,
        7,
    )
    assert line_of(scenario) == "r x2, ok, cut at=3 x5, error overloaded, r *"


def test_steps_in_a_file_are_those_of_the_line(file: Path) -> None:
    line = "r x2, ok, cut at=3, slow per_event=200ms x5, ok *"
    text = f"steps: [{', '.join(repr(step) for step in line.split(', '))}]\n"
    assert of(file, text).steps == parse_asked(line).steps


def test_file_gives_its_name_where_it_says_none(file: Path) -> None:
    assert of(file, "steps: [r]").name == "calls"
    odd = file.with_name("a b.yaml")
    assert of(odd, "steps: [r]").name == "scenario"


def test_everything_that_is_wrong_is_told_at_once(file: Path) -> None:
    told = wrong(
        file,
        """\
scope: tests
sede: 3
seed: x
place: server
name: a/b
steps:
  - r x2
  - cutt at=3
  - {fault: "cut at=3 x2", times: 5}
  - {falt: r}
  - {fault: r, times: -1}
  - {fault: r, times: 0}
  - [r]
  -
  - error quota upstream=opnai
  - status=503 body=none.json
  - r 3
""",
    )
    places = [one.split(": ")[0] + " " + one.split(": ")[1] for one in told]
    assert places == [
        "FILE:1 scope",
        "FILE:2 sede",
        "FILE:3 seed",
        "FILE:4 place",
        "FILE:5 name",
        "FILE:8 steps[1]",
        "FILE:9 steps[2].times",
        "FILE:10 steps[3].falt",
        "FILE:10 steps[3].fault",
        "FILE:11 steps[4].times",
        "FILE:12 steps[5].times",
        "FILE:13 steps[6]",
        "FILE:13 steps[6].fault",
        "FILE:14 steps[7]",
        "FILE:15 steps[8]",
        "FILE:16 steps[9]",
        "FILE:17 steps[10]",
    ]
    said = "\n".join(told)
    for words in (
        'found "tests"; accepted: all, model, test; did you mean "test"?',
        'unknown key; did you mean "seed"? (accepted: steps, name, scope, place, seed)',
        '"cutt" is no fault; did you mean "cut"?',
        "says twice how many requests take it",
        'unknown key; did you mean "fault"?',
        'found upstream="opnai", which is none; did you mean "openai"?',
        'found body="none.json", which cannot be read: No such file or directory',
        'as in "r x3"',
    ):
        assert words in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "FILE: the file must be a mapping"),
        ("- r\n", "FILE:1: the file must be a mapping"),
        ("steps: []\n", "found no step; accepted: one at least"),
        ("steps:\n", "FILE:1: steps: found no step"),
        ("name: x\n", "steps: missing"),
        ("steps: r x2\n", "found a text; accepted: a list"),
        ("steps: [r, 'ok *', r]\n", 'FILE:1: steps[2]: nothing comes to "r"'),
        ("steps: [r\n", "not YAML"),
        ("steps: [r]\nsteps: [r]\n", "duplicate key"),
        ("steps: [!!python/name:os.system r]\n", "tags are not accepted"),
        ("steps: ['${HOME}']\n", "steps[0]"),
        ("seed: 1234567890123456789\nsteps: [r]\n", "a whole number"),
    ],
)
def test_file_that_is_none_is_told_why(text: str, said: str, file: Path) -> None:
    assert said in "\n".join(wrong(file, text))


def test_file_that_cannot_be_read_is_told_why(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path, "is a folder; name the file in it"),
        (tmp_path / "none.yaml", "there is no such file"),
    ):
        with pytest.raises(ConfigError) as refused:
            read(path, UPSTREAMS, body_of)
        assert said in str(refused.value)
    long = tmp_path / "long.yaml"
    long.write_text("# " + "x" * 1024 * 1024)
    with pytest.raises(ConfigError, match="longer than 1 MiB"):
        read(long, UPSTREAMS, body_of)


def test_body_is_a_file_beside_the_scenario_and_never_elsewhere(file: Path) -> None:
    file.with_name("page.html").write_bytes(b"<h1>Back soon</h1>")
    (step,) = of(file, "steps: [status=503 body=page.html]").steps
    assert step.rule is not None
    assert step.rule.manner.body == b"<h1>Back soon</h1>"
    outside = file.parent.parent / f"{file.parent.name}-outside.json"
    outside.write_text("{}")
    file.with_name("link.json").symlink_to(outside)
    assert "leads out of" in wrong(file, "steps: [status=503 body=link.json]")[0]
    assert "a file within the folder" in wrong(file, "steps: [status=503 body=../x.json]")[0]


# As a part of the configuration.


def configured(tmp_path: Path, faults: str) -> Scenario | None:
    file = tmp_path / "llmproxyd.yaml"
    file.write_text(f"faults: {faults}\n")
    return of_config(load(file=file, environ={"HOME": str(tmp_path)}, providers=registry()))


def test_configuration_names_a_file_beside_it_or_holds_a_line(tmp_path: Path, file: Path) -> None:
    file.write_text("scope: model\nsteps: [r x2]\n")
    by_name = configured(tmp_path, "{scenario: calls.yaml}")
    assert by_name is not None
    assert (by_name.name, by_name.scope) == ("calls", Scope.MODEL)
    changed = configured(tmp_path, '{scenario: "calls.yaml scope=test seed=3"}')
    assert changed is not None
    assert (changed.scope, changed.seed) == (Scope.TEST, 3)
    line = configured(tmp_path, '{scenario: "r x2, ok name=x"}')
    assert line is not None
    assert (line.name, line_of(line)) == ("x", "r x2, ok")
    assert configured(tmp_path, "{}") is None


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ("{scenario: none.yaml}", "none.yaml: there is no such file"),
        ('{scenario: "r x2, okk"}', "llmproxyd.yaml:1: faults.scenario: "),
        (
            '{scenario: "r upstream=opnai"}',
            'llmproxyd.yaml:1: faults.scenario: step 1: found upstream="opnai"',
        ),
        ("{scenario: bad.yaml, sed: 1}", "bad.yaml:2: steps[0]"),
        ("{scenario: bad.yaml, sed: 1}", "llmproxyd.yaml:1: faults.sed: unknown key"),
        ("{report: none/report.json}", "llmproxyd.yaml:1: faults.report: found"),
    ],
)
def test_mistakes_are_told_with_those_of_the_configuration(faults: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: x\nsteps: [rr]\n")
    with pytest.raises(ConfigError) as refused:
        configured(tmp_path, faults)
    assert said in str(refused.value)
