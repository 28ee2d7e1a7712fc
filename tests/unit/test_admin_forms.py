"""Forms: what they read is what they describe, and what is wrong is told with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from llmproxyd.control.accessforms import AccessForms, allow_of
from llmproxyd.control.caches import PURGE
from llmproxyd.control.forms import Form, Whole, taken
from llmproxyd.control.switchforms import BREAKER, COMMAND
from llmproxyd.control.wrong import MOST_WRONG, Invalid

FORMS = AccessForms(["openai", "anthropic"])
ALL: dict[str, Form] = {
    "project": FORMS.project,
    "project_change": FORMS.project_change,
    "credentials": FORMS.credentials,
    "token": FORMS.token,
    "token_change": FORMS.token_change,
    "token_rotation": FORMS.token_rotation,
    "key": FORMS.key,
    "purge": PURGE,
    "command": COMMAND,
    "breaker": BREAKER,
}

VALIDATORS = {name: Draft202012Validator(form.schema()) for name, form in ALL.items()}

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
    st.sampled_from(
        ["openai", "30d", "2030-01-01", "POST", "/v1/models", "fault", "trip", "0s", "1h", "*", ""]
    ),
)
NAMES = st.one_of(
    st.text(max_size=10),
    st.sampled_from([name for form in ALL.values() for name in form.members] + ["openai", "rpm", "params"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(NAMES, below, max_size=5),
    max_leaves=12,
)


@settings(max_examples=250, deadline=None)
@given(name=st.sampled_from(sorted(ALL)), data=st.data())
def test_form_accepts_exactly_what_its_schema_does(name: str, data: st.DataObject) -> None:
    form = ALL[name]
    members = {
        member: data.draw(st.one_of(VALUES, st.sampled_from(LIKELY.get(member, [None]))))
        for member in form.members
        if data.draw(st.booleans())
    }
    extra = data.draw(st.dictionaries(NAMES, VALUES, max_size=1)) if data.draw(st.booleans()) else {}
    value: Any = {**members, **extra}
    wrong = refused(form, value)
    assert _odd(value) or VALIDATORS[name].is_valid(value) == (wrong is None), (value, wrong)


def refused(form: Form, value: Any) -> Invalid | None:
    try:
        taken(form, value)
    except Invalid as error:
        return error
    return None


def _odd(value: Any) -> bool:
    """Whether it holds what JSON Schema cannot say: moments, and texts that are none."""
    text = json.dumps(value)
    return "expires" in text or "\\ud" in text


LIKELY: dict[str, list[Any]] = {
    "name": ["a", "a b", " a", "x" * 101, ""],
    "credentials": [{"openai": "k"}, {"openai": None}, {"nope": "k"}, {"openai": "a b"}],
    "allow": [
        {"endpoints": ["/v1"], "methods": ["POST"]},
        {"methods": ["post"]},
        {"required_headers": ["x: 1"]},
    ],
    "limits": [{"rpm": 1, "tpm": None}, {"rpm": 0}, {"rpm": 2.0}, {"x": 1}],
    "scopes": [["fault", "admin"], ["root"], []],
    "project": ["p"],
    "grace": ["1h", "31d", "0s"],
    "secret_key": ["0123456789abcdef", "short"],
    "url": ["openai /v1"],
    "all": [True, False],
    "command": ["n"],
    "action": ["trip", "none"],
}


def test_problems_are_told_with_their_place_and_bounded() -> None:
    with pytest.raises(Invalid) as caught:
        taken(FORMS.project, {f"m{number}": 1 for number in range(1000)})
    assert len(caught.value.wrong) == MOST_WRONG
    with pytest.raises(Invalid) as caught:
        taken(FORMS.project, {"name": "p", "allow": {"params": {"a/b~c": [1]}}})
    (wrong,) = caught.value.wrong
    assert (wrong.pointer, wrong.found) == ("/allow/params/a~1b~0c/0", "1")


@pytest.mark.parametrize(
    ("params", "good"),
    [
        ({"model": ["gpt-4o-*"]}, True),
        ({"model": []}, False),
        ({"a[0]": ["x"]}, False),
        ({"a]\\^": ["x"]}, True),
        ({"": ["x"]}, False),
    ],
)
def test_parameter_that_is_allowed_has_a_name_and_values(params: dict[str, Any], good: bool) -> None:
    value = {"name": "p", "allow": {"params": params}}
    assert VALIDATORS["project"].is_valid(value) is good
    if good:
        allow = allow_of(taken(FORMS.project, value)["allow"])
        assert not [*allow.problems()]
    else:
        with pytest.raises(Invalid) as caught:
            taken(FORMS.project, value)
        assert caught.value.wrong[0].pointer.startswith("/allow/params/")


@pytest.mark.parametrize("value", [True, "1", 1.5, 0, 11, None, [], float("inf")])
def test_number_is_whole_and_within_bounds(value: Any) -> None:
    wrong: list[Any] = []
    Whole(1, 10).read(value, "", wrong)
    assert len(wrong) == 1


@settings(max_examples=300)
@given(st.text(min_size=7, max_size=60))
def test_secret_is_never_told(text: str) -> None:
    secret = "SECRET" + text
    error = refused(FORMS.project, {"name": "p", "credentials": {"openai": secret}})
    assert error is None or "SECRET" not in str(error) + str(error.wrong)
