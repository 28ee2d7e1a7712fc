"""A secret shows itself to nobody who does not ask for it by name."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.model import Request, Response
from llmproxyd.observe.logs import json_line
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.providers.detect import facts_of
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import REDACTED, Secret

KEY = "sk-proj-0123456789abcdef"


@dataclass(frozen=True)
class Holder:
    key: Secret


SHOWN = [
    lambda secret: repr(secret),
    lambda secret: str(secret),
    lambda secret: f"{secret}",
    lambda secret: f"{secret!r:>40}",
    lambda secret: f"{secret:>40}",
    lambda secret: f"{secret:.3}",
    lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
    lambda secret: "{}".format(secret),  # noqa: UP032
    lambda secret: repr([secret, {"key": secret}]),
    lambda secret: repr(Holder(secret)),
    lambda secret: json_line({"key": secret}),
    lambda secret: repr(copy.copy(secret)) + repr(copy.deepcopy(Holder(secret))),
    lambda secret: repr(ValueError(secret)),
    lambda secret: "".join(traceback.format_exception(ValueError(secret))),
    lambda secret: logging.LogRecord("x", 20, "x", 1, "key %s", (secret,), None).getMessage(),
]


@pytest.mark.parametrize("show", SHOWN)
def test_secret_is_shown_as_redacted(show: object) -> None:
    text = show(Secret(KEY))  # type: ignore[operator]
    assert KEY[:4] not in text
    assert REDACTED[:3] in text


def test_secret_is_revealed_on_request() -> None:
    assert Secret(KEY).reveal() == KEY


def test_secret_does_not_leave_the_process() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(Secret(KEY), protocol)
    with pytest.raises(TypeError):
        json.dumps(Secret(KEY))


def test_secret_has_no_dictionary_of_attributes() -> None:
    with pytest.raises(TypeError):
        vars(Secret(KEY))


@settings(deadline=None)
@given(st.text(), st.text())
def test_secrets_are_equal_when_their_texts_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) == (one == other)
    assert hash(Secret(one)) == hash(Secret(one))


def test_secret_is_no_text() -> None:
    assert Secret(KEY) != KEY


def test_nothing_that_carries_a_key_shows_it() -> None:
    fields = [(b"Authorization", b"Bearer " + KEY.encode()), (b"Set-Cookie", KEY.encode())]
    request = Request(b"POST", b"/v1/models?key=" + KEY.encode(), fields)
    upstream = Upstream(
        name="openai",
        provider=registry()["openai"],
        base_url="http://127.0.0.1:1",
        api_key=Secret(KEY),
        headers=fields,
    )
    for one in (request, Response(200, b"OK", fields), facts_of(request), upstream):
        assert KEY[:6] not in repr(one)
