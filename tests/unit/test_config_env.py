"""``LLMPROXYD_…`` sets any scalar."""

from __future__ import annotations

import pytest
from test_config import PROVIDERS, load_text

from llmproxyd.config import reflect
from llmproxyd.config.env import variable_for
from llmproxyd.config.load import ConfigError, load
from llmproxyd.config.schema import Config


def from_environment(**environ: str) -> Config:
    return load(environ=environ, providers=PROVIDERS)


SCALARS = [
    place
    for place, kind in reflect.places(Config)
    if "[]" not in place
    and not reflect.is_table(reflect.present(kind))
    and reflect.mapped(reflect.present(kind)) is None
    and reflect.listed(reflect.present(kind)) is None
]


@pytest.mark.parametrize("place", SCALARS, ids=[".".join(place) for place in SCALARS])
def test_every_scalar_has_a_variable(place):
    # A value that no key takes shows that the variable reached its key.
    variable = variable_for(place)
    environ = {variable: "\x01"}
    if place[:2] == ("upstreams", "NAME"):
        environ.setdefault("LLMPROXYD_UPSTREAMS__NAME__PROVIDER", "openai")
    with pytest.raises(ConfigError) as caught:
        load(environ=environ, providers=PROVIDERS)
    assert [problem.source for problem in caught.value.problems] == [f"environment {variable}"]


def test_a_value_is_read_as_the_type_of_its_key():
    config = from_environment(
        LLMPROXYD_SERVER__OPEN="true",
        LLMPROXYD_SERVER__MAX_BODY="1KiB",
        LLMPROXYD_OPERATOR__STDIN="false",
        LLMPROXYD_FAULTS__MODE="c 3",
        LLMPROXYD_UPSTREAMS__OPENAI__API_KEY="${not a variable}",
    )
    assert (config.server.open, config.server.max_body, config.operator.stdin) == (True, 1024, False)
    assert config.faults.mode == "c 3"
    key = config.upstreams["openai"].api_key
    assert key is not None
    assert key.reveal() == "${not a variable}"


def test_a_name_of_the_file_is_recognised_whatever_its_punctuation(tmp_path):
    text = "upstreams: {my-vllm.2: {provider: openai, base_url: http://a}, my_x: {provider: openai}}"
    config = load_text(
        tmp_path,
        text,
        environ={
            "LLMPROXYD_UPSTREAMS__MY_VLLM_2__BASE_URL": "http://b",
            "LLMPROXYD_UPSTREAMS__MY_X__BASE_URL": "http://c",
        },
    )
    assert config.upstreams["my-vllm.2"].base_url == "http://b"
    assert config.upstreams["my_x"].base_url == "http://c"


def test_a_new_name_is_lower_case_with_hyphens():
    config = from_environment(
        LLMPROXYD_UPSTREAMS__MY_VLLM__PROVIDER="openai",
        LLMPROXYD_UPSTREAMS__MY_VLLM__HEADERS__X_TEAM="a",
    )
    assert dict(config.upstreams["my-vllm"].headers).keys() == {"x-team"}


@pytest.mark.parametrize(
    ("variable", "warning"),
    [
        ("LLMPROXYD_TIMEOUT__CONNECT", 'did you mean "LLMPROXYD_TIMEOUTS__CONNECT"?'),
        ("LLMPROXYD_TIMEOUTS_CONNECT", 'did you mean "LLMPROXYD_TIMEOUTS__CONNECT"?'),
        ("LLMPROXYD_QQQ", "sets nothing"),
        ("LLMPROXYD_", "sets nothing"),
        ("LLMPROXYD_timeouts__connect", "sets nothing"),
        ("LLMPROXYD_TIMEOUTS", "sets nothing; timeouts is a mapping"),
        ("LLMPROXYD_LISTEN", "sets nothing; listen is a list, which only a file can hold"),
        ("LLMPROXYD_ROUTES__0__HOST", "sets nothing"),
        ("LLMPROXYD_UPSTREAMS____BASE_URL", "sets nothing"),
        ("LLMPROXYD_TIMEOUTS__CONNECT__X", "sets nothing"),
    ],
)
def test_a_name_that_sets_nothing_draws_a_warning(variable, warning):
    (found,) = from_environment(**{variable: "1"}).warnings
    assert found.startswith(f"environment {variable}: ")
    assert warning in found


def test_other_variables_are_not_looked_at():
    assert from_environment(OPENAI_BASE_URL="http://x", PORT="1").warnings == ()


def test_an_empty_variable_means_null():
    config = from_environment(LLMPROXYD_SERVER__SINGLE_UPSTREAM="")
    assert config.server.single_upstream is None
    with pytest.raises(ConfigError, match="found nothing"):
        from_environment(LLMPROXYD_TIMEOUTS__IDLE="")
