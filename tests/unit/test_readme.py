"""What the README says is so."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from docutils.core import publish_string

from llmproxyd.config.load import load
from llmproxyd.faults.language import KINDS, OPTIONS, SetFault, parse
from llmproxyd.providers.registry import registry
from llmproxyd.tap import Options

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text()


def block_with(text: str) -> str:
    """The literal block that holds *text*, without its indentation."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", README)
    found = [block for block in blocks if text in block]
    assert len(found) == 1, f"{len(found)} blocks hold {text!r}"
    return re.sub(r"(?m)^    ", "", found[0])


@pytest.mark.parametrize(
    "name", ["README.rst", "CHANGELOG.rst", "docs/performance.rst", "benchmarks/README.rst"]
)
def test_it_is_valid(name: str) -> None:
    said = io.StringIO()
    publish_string(
        (ROOT / name).read_text(),
        writer="null",
        settings_overrides={"report_level": 1, "halt_level": 5, "warning_stream": said},
    )
    assert said.getvalue() == ""


def test_every_option_is_in_its_table() -> None:
    names = [entry[0] for entry in [*Options.optParameters, *Options.optFlags]]
    assert [name for name in [*names, "version"] if f"``--{name}" not in README] == []


def test_every_kind_and_every_option_of_a_fault_is_explained() -> None:
    assert [kind for kind in KINDS if f"``{kind}``" not in README] == []
    assert [name for name in OPTIONS if f"``{name}=" not in README] == []


def test_the_examples_of_options_are_understood() -> None:
    for name in OPTIONS:
        example = re.search(rf"``({name}=[^`]+)``", README)
        assert example is not None
        assert isinstance(parse(f"r 3 {example.group(1)}"), SetFault)


def test_the_example_of_a_configuration_loads(tmp_path: Path) -> None:
    file = tmp_path / "llmproxyd.yaml"
    file.write_text(block_with("my-vllm"))
    file.chmod(0o600)
    config = load(file=file, environ={"OPENAI_API_KEY": "sk-x"}, providers=registry())
    assert config.upstreams["my-vllm"].base_url == "http://10.0.0.5:8000"
    assert [rule.name for rule in config.faults.rules] == ["flaky-gpt"]
    assert config.warnings == ()


def test_every_provider_is_named() -> None:
    text = " ".join(README.split())
    assert [one.title for one in registry().values() if one.title not in text] == []


def test_the_table_of_answers_is_what_is_answered() -> None:
    providers = registry()
    rows = re.findall(r"(?m)^(\w+) +(\d{3})\b.*? +(429)\b.*? +(\d{3})\b", README)
    assert len(rows) == 6
    for title, *statuses in rows:
        provider = next(one for one in providers.values() if one.title.startswith(title))
        kinds = ("context_length", "rate_limit", provider.unknown)
        told = [str(provider.errors[kind].status) for kind in kinds]  # type: ignore[index]
        assert told == statuses, title
