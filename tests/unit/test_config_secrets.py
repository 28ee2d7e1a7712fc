"""Secrets: where they come from, and that nothing shows them."""

from __future__ import annotations

import copy
import pickle

import pytest
from test_config import PROVIDERS, load_text, problems

from llmproxyd.config.dump import dump
from llmproxyd.config.load import load
from llmproxyd.config.problems import quoted
from llmproxyd.redaction import Secret

KEY = "sk-test-1234567890"


def key_of(config):
    return config.upstreams["openai"].api_key.reveal()


def upstream(text: str) -> str:
    return f"upstreams: {{openai: {{api_key: {text}}}}}"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (KEY, KEY),
        ('"${KEY}"', KEY),
        ('"a${KEY}b${KEY}"', f"a{KEY}b{KEY}"),
        ('"$${KEY}"', "${KEY}"),
        ('"$KEY"', "$KEY"),
        ("12345", "12345"),
        ("{file: key.txt}", "from-file"),
        ("{file: ~/key.txt}", "from-file"),
        ("{credential: openai}", "from-systemd"),
    ],
)
def test_a_secret_is_read_from_where_it_is_kept(tmp_path, text, key):
    (tmp_path / "key.txt").write_text("from-file\n")
    (tmp_path / "key.txt").chmod(0o600)
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds" / "openai").write_text("from-systemd")
    (tmp_path / "creds" / "openai").chmod(0o400)
    environ = {"KEY": KEY, "CREDENTIALS_DIRECTORY": str(tmp_path / "creds"), "HOME": str(tmp_path)}
    config = load_text(tmp_path, upstream(text), environ=environ)
    assert key_of(config) == key
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"${NOPE}"', "the environment variable NOPE is not set"),
        ('"${EMPTY}"', "the environment variable EMPTY is empty"),
        ('"${a b}"', 'written "${NAME}"'),
        ('"${A"', 'written "${NAME}"'),
        ("''", "the secret is empty"),
        ('"a\\nb"', "one line of ASCII text"),
        ('"ä"', "one line of ASCII text"),
        ("[a]", "found a list; accepted: one secret"),
        ("{}", "accepted: {file: PATH}, {credential: NAME}"),
        ("{flie: x}", 'did you mean "file"?'),
        ("{file: x, credential: y}", "accepted: {file: PATH}, {credential: NAME}"),
        ("{file: }", "file: accepted: a path"),
        ("{file: [a]}", "file: accepted: a path"),
        ("{file: nope}", "nope cannot be read: No such file or directory"),
        ("{file: .}", "cannot be read: Is a directory"),
        ("{file: /dev/zero}", "is longer than 64 KiB"),
        ("{file: empty}", "the secret is empty"),
        ("{file: binary}", "binary is not text"),
        ("{credential: x}", "$CREDENTIALS_DIRECTORY is not set"),
    ],
)
def test_a_secret_that_cannot_be_had_is_reported(tmp_path, text, expected):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    (found,) = problems(tmp_path, upstream(text), environ={"EMPTY": ""})
    assert "x.yaml:1: upstreams.openai.api_key: " in found
    assert expected in found


@pytest.mark.parametrize("name", ["../x", "a/b", "..", '"a\\0"'])
def test_a_credential_does_not_lead_out_of_its_folder(tmp_path, name):
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert (
        "is no name of a credential"
        in problems(tmp_path, upstream(f"{{credential: {name}}}"), environ=environ)[0]
    )


def test_nothing_prints_a_secret():
    secret = Secret(KEY)
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret:>20}", repr([secret])):
        assert KEY not in shown
        assert "[redacted]" in shown
    assert secret == Secret(KEY) != Secret("other")
    assert hash(secret) == hash(Secret(KEY))
    assert secret != KEY
    assert copy.deepcopy(secret) is copy.copy(secret) is secret
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_the_dump_and_the_repr_of_a_configuration_hold_no_secret(tmp_path):
    text = f"upstreams: {{openai: {{api_key: {KEY}, headers: {{x-a: {KEY}, x-b: plain}}}}}}"
    config = load_text(tmp_path, text)
    for shown in (dump(config), repr(config)):
        assert KEY not in shown
        assert "plain" not in shown
        assert "[redacted]" in shown


@pytest.mark.parametrize(
    "text",
    [
        f"upstreams: {{openai: {{headers: {KEY}}}}}",
        f"upstreams: {{openai: {{headers: {{content-length: {KEY}}}}}}}",
        f"upstreams: {{openai: {{api_key: [{KEY}]}}}}",
        f"upstreams: {{openai: {{api_key: {{key: {KEY}}}}}}}",
        f'upstreams: {{openai: {{api_key: "{KEY}\\n{KEY}"}}}}',
        f"upstreams: {{openai: {{api_keys: {KEY}}}}}",
        f"upstreams: {{openai: {KEY}}}",
        f"upstreams: {{openai: {{provider: {KEY}}}}}",
        f"upstreams: {{openai: {{base_url: 'https://user:{KEY}@x'}}}}",
        f"upstreams: {{openai: {{base_url: 'user:{KEY}@x'}}}}",
        f"upstreams: {{openai: {{base_url: 'https://x/?key={KEY}'}}}}",
        f"upstreams: {{openai: {{base_url: 'https://x/?key={KEY[3:]}'}}}}",
        f"upstreams: {{openai: {{base_url: 'https://user:{KEY[3:]}@x'}}}}",
        f"{KEY}: 1",
        f"- {KEY}",
    ],
)
def test_no_problem_shows_a_secret_in_the_wrong_place(tmp_path, text):
    assert KEY[3:] not in "\n".join(problems(tmp_path, text))


def test_what_is_quoted_is_short_and_without_control_characters():
    assert quoted("\x1b[2J" + "a" * 100) == '"\\u001b[2J' + "a" * 56 + '\\u2026"'


def test_a_file_with_a_secret_that_others_can_read_draws_a_warning(tmp_path):
    file = tmp_path / "x.yaml"
    load_text(tmp_path, upstream(KEY))

    for mode, warned in ((0o600, 0), (0o640, 1), (0o604, 1)):
        file.chmod(mode)
        warnings = load(file=file, environ={}, providers=PROVIDERS).warnings
        assert len(warnings) == warned
        assert all(text.startswith(f"{file}:1: holds a secret") and KEY not in text for text in warnings)


@pytest.mark.parametrize(("name", "warned"), [("x-team", 0), ("Authorization", 1), ("x-api-key", 1)])
def test_only_a_header_that_carries_a_credential_counts_as_a_secret_here(tmp_path, name, warned):
    file = tmp_path / "x.yaml"
    file.write_text(f"upstreams: {{openai: {{headers: {{{name}: abc}}}}}}")
    file.chmod(0o644)
    assert len(load(file=file, environ={}, providers=PROVIDERS).warnings) == warned


def test_a_file_that_only_points_to_a_secret_may_be_read(tmp_path):

    file = tmp_path / "x.yaml"
    file.write_text(upstream('"${KEY}"'))
    file.chmod(0o644)
    assert load(file=file, environ={"KEY": KEY}, providers=PROVIDERS).warnings == ()


def test_a_secrets_own_file_that_others_can_read_draws_a_warning(tmp_path):
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o644)
    (warning,) = load_text(tmp_path, upstream("{file: key}")).warnings
    assert f"others can read {tmp_path / 'key'}" in warning
    (tmp_path / "cert.pem").write_text("x")
    (tmp_path / "cert.pem").chmod(0o644)
    (warning,) = load_text(tmp_path, "upstreams: {openai: {tls: {client_cert: cert.pem}}}").warnings
    assert "upstreams.openai.tls.client_cert: others can read" in warning


def test_the_placeholder_of_a_dump_draws_a_warning(tmp_path):
    (warning,) = load_text(tmp_path, upstream("'[redacted]'")).warnings
    assert "holds the placeholder [redacted] instead of a secret" in warning
