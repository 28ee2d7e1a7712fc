"""What the README and the documents beside it say is so."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import fields
from importlib import resources
from itertools import chain
from pathlib import Path

import pytest
import yaml
from docutils.core import publish_string

from llmproxyd.access.allowlist import Allow
from llmproxyd.admin.parser import parser
from llmproxyd.admin.routes import OFF
from llmproxyd.cache.key import key_of, url_of
from llmproxyd.config.gateway import CacheRule, CacheSettings
from llmproxyd.config.load import load, presets
from llmproxyd.config.schema import Config
from llmproxyd.faults.language import KINDS, OPTIONS, SetFault, parse
from llmproxyd.language.table import TABLE
from llmproxyd.model import BreakerChanged, CredentialRested, Retrying
from llmproxyd.observe.requestlog import Absorbed, text_event
from llmproxyd.options import Options
from llmproxyd.providers.registry import registry
from llmproxyd.resilience.breaker import BreakerPolicy
from llmproxyd.resilience.budget import BudgetPolicy
from llmproxyd.resilience.policy import Hold, Resilience
from llmproxyd.resilience.retry import NATIVE, Retry
from llmproxyd.resilience.timeouts import Timeouts
from llmproxyd.resilience.verdict import HardStop, Recategorize
from llmproxyd.transform.body import Transforms
from llmproxyd.transform.paths import rewrite
from llmproxyd.transform.rules import Transform

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text()
DOCS = sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.rst"))
TEXTS = {"README.rst": README} | {name: (ROOT / name).read_text() for name in DOCS}
KEYS = {one.name for one in fields(Config)} | {"apis", "default_api", "target_proxy"}


def blocks_of(text: str) -> list[str]:
    """The literal blocks of *text*, without their indentation."""
    found = re.findall(r"::\n\n((?:    .*\n|\n)+)", text)
    return [re.sub(r"(?m)^    ", "", block) for block in found]


def block_with(text: str, name: str = "README.rst") -> str:
    """The literal block of the document *name* that holds *text*."""
    found = [block for block in blocks_of(TEXTS[name]) if text in block]
    assert len(found) == 1, f"{len(found)} blocks hold {text!r}"
    return found[0]


CONFIGURATIONS = [
    (name, block)
    for name, text in TEXTS.items()
    for block in blocks_of(text)
    if re.match(r"[a-z_]+:( |\n)", block) and block.partition(":")[0] in KEYS
]


def loaded(tmp_path: Path, text: str) -> Config:
    """The configuration *text*, where all variables, files and credentials that it names are there."""
    files = re.findall(r"\{file: ([\w.]+)\}|(?:passwords|authorized_keys): (\w+)", text)
    for name in filter(None, chain.from_iterable(files)):
        (tmp_path / name).write_text(f"secret-of-{name}\n")
        (tmp_path / name).chmod(0o600)
    file = tmp_path / "llmproxyd.yaml"
    file.write_text(text)
    file.chmod(0o600)
    environ = {name: f"secret-{name}" for name in re.findall(r"\$\{(\w+)\}", text)}
    for name in re.findall(r"\{credential: ([\w.]+)\}", text):
        (tmp_path / name).write_text(f"secret-of-{name}\n")
        environ["CREDENTIALS_DIRECTORY"] = str(tmp_path)
    return load(file=file, environ=environ, providers=registry())


@pytest.mark.parametrize("name", ["README.rst", "CHANGELOG.rst", *DOCS, "benchmarks/README.rst"])
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
        often = "" if name == "percent" else "3 "
        assert isinstance(parse(f"r {often}{example.group(1)}"), SetFault)


def test_the_example_of_a_configuration_loads(tmp_path: Path) -> None:
    config = loaded(tmp_path, block_with("my-vllm"))
    assert config.upstreams["my-vllm"].base_url == "http://10.0.0.5:8000"
    assert [rule.name for rule in config.faults.rules] == ["flaky-gpt"]


@pytest.mark.parametrize(("name", "block"), CONFIGURATIONS)
def test_every_example_of_a_configuration_loads_without_a_warning(
    name: str, block: str, tmp_path: Path
) -> None:
    assert loaded(tmp_path, block).warnings == ()


def test_the_examples_of_configurations_are_found() -> None:
    those = {"access", "cache", "events", "logs", "resilience", "transforms"}
    assert {name for name, _ in CONFIGURATIONS} >= {"README.rst", *(f"docs/{name}.rst" for name in those)}
    assert [name for name, block in CONFIGURATIONS if "\napis:\n" in block] == ["README.rst"]


def test_every_document_that_is_named_is_there() -> None:
    for name, text in TEXTS.items():
        for link in re.findall(r"<([\w./-]+)>`__?", text):
            assert (ROOT / name).parent.joinpath(link).is_file(), link


# The screens.


def test_sillytaverns_file_is_read_as_it_is_said(tmp_path: Path) -> None:
    config = loaded(tmp_path, block_with("target_proxy"))
    assert config.server.single_upstream == "target"
    assert config.upstreams["target"].base_url == "https://your-target-proxy.com/proxy/your-service"
    assert all("8765" in one for one in config.listen)
    assert (config.timeouts.connect, config.timeouts.headers, config.timeouts.idle) == (120, 120, 120)
    assert (config.logging.folder, config.error_logging.folder) == (
        tmp_path / "logs",
        tmp_path / "logs" / "errors",
    )
    assert config.logging.enabled
    assert config.error_logging.enabled
    breaker = config.resilience["default"].breaker
    assert (breaker.enabled, breaker.failure_threshold, breaker.recovery_timeout) == (True, 5, 60)


def test_what_is_left_out_of_sillytaverns_file_is_told_as_it_is_said(tmp_path: Path) -> None:
    told = re.search(r"``config\.yaml:17: NAME: (.+)``", README)
    assert told is not None
    file = tmp_path / "config.yaml"
    file.write_text("\n" * 13 + block_with("target_proxy").rstrip() + "\n" + "extra: {enabled: true}\n")
    (warning,) = load(file=file, environ={}, providers=registry()).warnings
    assert warning == f"{file}:17: extra: {told.group(1)}"


def test_the_variables_of_venice_are_those_of_its_preset() -> None:
    file = resources.files("llmproxyd.config") / "presets" / "venice.yaml"
    known = yaml.safe_load(file.read_text())["environment"]
    rows = re.findall(r"(?m)^``([A-Z_]+)`` +``([^`]+)``", README)
    assert dict(rows) == {name: str(one["default"]) for name, one in known.items()}


def test_the_presets_are_all_named() -> None:
    table = README[README.index("\nPresets:\n") :].partition("Standard input")[0]
    assert sorted(re.findall(r"(?m)^``(\w+)``", table)) == presets()


def test_the_file_for_a_flaky_endpoint_does_what_is_said(tmp_path: Path) -> None:
    config = loaded(tmp_path, block_with("my-endpoint: {"))
    assert config.server.single_upstream == "my-endpoint"
    policy = config.resilience["default"]
    assert (policy.retry.max_retries, policy.breaker.enabled) == (3, True)


@pytest.mark.parametrize("name", ["README.rst", "docs/resilience.rst"])
def test_the_statuses_that_are_tried_again_are_these(name: str) -> None:
    (row,) = re.findall(r"(?m)^(408(?:, \d{3}| to \d{3})+)  ", TEXTS[name])
    told: set[int] = set()
    for part in row.split(", "):
        first, _, last = part.partition(" to ")
        told.update(range(int(first), int(last or first) + 1))
    assert told == NATIVE


def test_the_commands_for_breakers_are_understood() -> None:
    for text in ("breaker", "breaker trip my-endpoint", "breaker reset my-endpoint"):
        assert f"\n``{text}``  " in README
        TABLE.parse(text)


def retrying(upstream: str, failed: str, delay: float, of: int, request: str, to: str = "") -> Retrying:
    return Retrying(
        number=7,
        request_id=request,
        upstream=upstream,
        failed=failed,
        delay=delay,
        retry=1 if to else 2,
        of=of,
        to=to or upstream,
    )


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("README.rst", retrying("my-endpoint", "overloaded (529)", 4.0, 3, "1f0c9a7e-7")),
        ("docs/logs.rst", retrying("openai", "overloaded (529)", 4.0, 10, "1f0c9a7e-7")),
        ("docs/resilience.rst", retrying("openai", "overloaded (529)", 4.0, 10, "1f0c9a7e-7")),
        (
            "docs/resilience.rst",
            retrying("my-endpoint", "unavailable (503)", 0.0, 3, "1f0c9a7e-8", to="spare"),
        ),
        (
            "docs/resilience.rst",
            CredentialRested(upstream="openai", which=1, status=429, seconds=30.0, left=1),
        ),
        (
            "docs/resilience.rst",
            BreakerChanged(
                name="openai", before="closed", after="open", cause="5 failures in a row", seconds=60.0
            ),
        ),
    ],
)
def test_the_lines_of_the_log_are_written_so(name: str, event: Absorbed) -> None:
    assert f"{text_event(event, symbols=False)}\n" in TEXTS[name]


# The documents.


ERRORS = ("BadRequest", "Busy", "Final", "Refused", "Retryable")
ADMIN = ("admin", "control", "observe")
"""Rooms whose errors the admin API answers."""

ELSEWHERE = {
    ("site/access.py", "local_only", 403),
    ("site/logs.py", "error_log_unreadable", 500),
    ("admin/resource.py", "internal_error", 500),
    *(("admin/resource.py", code, 404) for code, _ in OFF.values()),
    *(("library/door.py", f"token_{code}", 401) for code in ("not_found", "inactive", "expired")),
}
"""What is made in another way: file, code, status."""

UNREAD = {"admin/resource.py", "library/door.py"}
"""Files with errors whose codes stand in a table of theirs."""


def errors_of(tree: ast.Module) -> Iterator[tuple[int, ast.expr]]:
    """Status and code of every error that the module makes itself; those that copy another are none."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or len(node.args) < 2:
            continue
        made = isinstance(node.func, ast.Name) and node.func.id in ERRORS
        made = made or (isinstance(node.func, ast.Attribute) and node.func.attr == "__init__")
        status = node.args[0]
        if made and isinstance(status, ast.Constant) and isinstance(status.value, int):
            yield status.value, node.args[1]


def named_in(tree: ast.Module, name: str) -> Iterator[ast.expr]:
    """What the variable or parameter *name* is given within the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            yield from (node.value for target in node.targets if ast.unparse(target) == name)
        if not isinstance(node, ast.FunctionDef):
            continue
        names = [one.arg for one in node.args.args]
        if name not in names:
            continue
        defaults = dict(zip(names[::-1], node.args.defaults[::-1], strict=False))
        yield from (value for one, value in defaults.items() if one == name)
        place = names.index(name) - (names[0] == "self")
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(node.name):
                yield from call.args[place : place + 1]


def texts_of(tree: ast.Module, code: ast.expr) -> set[str]:
    """The codes that *code* may be."""
    match code:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=one, orelse=other):
            return texts_of(tree, one) | texts_of(tree, other)
        case ast.Name(id=name):
            found = (texts_of(tree, one) for one in named_in(tree, name) if not isinstance(one, ast.Name))
            return set().union(*found)
    return set()


def codes() -> tuple[set[tuple[str, str, int]], set[str]]:
    """File, code and status of every error; and the files with codes that cannot be read."""
    made, unread = set(ELSEWHERE), set()
    for path in (ROOT / "llmproxyd").rglob("*.py"):
        tree, file = ast.parse(path.read_text()), path.relative_to(ROOT / "llmproxyd").as_posix()
        for status, code in errors_of(tree):
            found = texts_of(tree, code)
            made |= {(file, text, status) for text in found}
            if not found:
                unread.add(file)
    return made, unread


def test_every_code_of_an_error_is_listed_with_its_status_and_no_other() -> None:
    found, unread = codes()
    assert unread == UNREAD
    made = {(code, status) for file, code, status in found if file.partition("/")[0] not in ADMIN}
    assert len(made) > 50
    text = TEXTS["docs/errors.rst"]
    rows = re.findall(r"(?m)^``(\w+)`` +(\d{3}) ", text)
    sandbox = re.findall(r"``(sandbox_\w+)``\s+\((\d{3})\)", text)
    assert len(set(rows)) == len(rows), "a code stands there twice"
    assert {(code, int(status)) for code, status in rows + sandbox} == made
    assert "``hard_stop``  " in text


def test_every_code_of_the_admin_api_is_listed_with_its_status_and_no_other() -> None:
    found, _ = codes()
    made = {(code, status) for file, code, status in found if file.partition("/")[0] in ADMIN}
    passed_on = {("token_inactive", 401), ("token_expired", 401)}
    listed = set()
    for statuses, row in re.findall(
        r"(?m)^(\d{3}(?:, \d{3})*) +(``.*(?:\n {20,}``.*)*)", TEXTS["docs/admin.rst"]
    ):
        for code in re.findall(r"``([a-z_]+)``", row):
            allowed = [(code, int(one)) for one in statuses.split(", ")]
            right = [one for one in allowed if one in made | passed_on]
            assert right, f"{code} is not answered with {statuses}"
            listed.update(right)
    assert made | passed_on == listed


def test_the_readme_names_only_codes_that_there_are() -> None:
    found, _ = codes()
    made = {(code, status) for _, code, status in found}
    table = README[README.index("\nStatus  ") :].partition("\n\n")[0]
    rows = re.findall(r"(?m)^(\d{3}) +(``.*(?:\n {8}``.*)*)", table)
    told = {(code, int(status)) for status, row in rows for code in re.findall(r"``([a-z_]+)``", row)}
    assert len(told) == 8
    assert told <= made


# The gateway.


def commands(text: str) -> list[str]:
    """The commands of llmproxyctl in literal blocks."""
    lines = "\n".join(blocks_of(text)).splitlines()
    found = (re.search(r"(?:^|\()(llmproxyctl .*?)(?=;| +[>|#]|\)|$)", line) for line in lines)
    return [one[1].strip() for one in found if one is not None]


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if commands(text)])
def test_every_command_of_llmproxyctl_is_one(name: str) -> None:
    for command in commands(TEXTS[name]):
        parser().parse_args(shlex.split(command)[1:])


def below(one: ArgumentParser) -> dict[str, ArgumentParser]:
    """The verbs of a parser."""
    for action in one._actions:
        if isinstance(action.choices, dict):
            return action.choices
    return {}


def test_all_verbs_of_llmproxyctl_are_in_their_table() -> None:
    text = TEXTS["docs/admin.rst"]
    table = text[text.index("\nllmproxyctl\n===") : text.index("\nThe API\n===")]
    words = set(re.findall(r"[a-z]+(?:-[a-z]+)*", " ".join(re.findall(r"``([^`]+)``", table))))
    for name, verb in below(parser()).items():
        assert name in words, name
        assert below(verb).keys() - words == set(), name


def test_the_verbs_in_the_readme_are_some() -> None:
    table = README[README.index("\n``project``, ``token``") : README.index("These are verbs of")]
    found = re.findall(r"(?m)^``([a-z]+)(?: ([a-z]+)(?=``| [A-Z]))?", table)
    assert len(found) > 8
    verbs = below(parser())
    for name, second in found:
        assert name in verbs
        assert not second or second in (below(verbs[name]) or {second}), f"{name} {second}"


def test_every_key_of_the_cache_and_of_allowlists_is_explained() -> None:
    for name, kind in (
        ("docs/cache.rst", CacheSettings),
        ("docs/cache.rst", CacheRule),
        ("docs/access.rst", Allow),
    ):
        assert [one.name for one in fields(kind) if not re.search(rf"\b{one.name}\b", TEXTS[name])] == []


def test_the_functions_that_make_keys_are_where_it_is_said() -> None:
    for function in (key_of, url_of):
        assert f"``{function.__name__}``" in TEXTS["docs/cache.rst"]
        assert f"``{function.__module__}``" in TEXTS["docs/cache.rst"]


@pytest.mark.parametrize(
    "kind", [Resilience, Retry, BudgetPolicy, BreakerPolicy, Hold, Recategorize, HardStop, Timeouts]
)
def test_every_key_of_a_policy_is_explained(kind: type) -> None:
    # A description is for whoever reads the file.
    names = {one.name for one in fields(kind)} - {"description"}
    text = TEXTS["docs/resilience.rst"]
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", text)) == []


def test_every_timeout_has_a_code() -> None:
    for one in fields(Timeouts):
        assert re.search(rf"(?m)^``{one.name}`` .*``{one.name}_timeout``", TEXTS["docs/resilience.rst"])


def test_a_body_is_changed_as_it_is_said(tmp_path: Path) -> None:
    name = "docs/transforms.rst"
    config = loaded(tmp_path, block_with("drop_unless", name))
    rules = config.upstreams["my-endpoint"].transform
    body, sent = (block_with(text, name).strip() for text in ('"max_tokens"', '"max_completion_tokens"'))
    changed = Transforms(rules).apply("chat", None, body.encode())
    assert changed is not None
    assert json.loads(changed) == json.loads(sent)
    assert list(json.loads(changed)) == list(json.loads(sent))
    assert Transforms(rules).apply("embeddings", None, body.encode()) is None


def test_every_operation_of_a_rule_is_explained() -> None:
    rows = re.findall(r"(?m)^``(\w+)``  ", TEXTS["docs/transforms.rst"])
    assert rows == [one.name for one in fields(Transform) if one.name not in ("endpoints", "models", "paths")]


def test_paths_are_others_as_it_is_said(tmp_path: Path) -> None:
    config = loaded(tmp_path, block_with("paths:", "docs/transforms.rst"))
    (rule,) = config.upstreams["my-endpoint"].transform
    found = [rewrite(rule.paths, path) for path in (b"/v1/files/7", b"/v1/models")]
    assert [(one.target, one.root) for one in found if one] == [(b"/files/7", True), (b"/models", False)]


# The tables.


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
