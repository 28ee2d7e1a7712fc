"""What an answer was to the client, and by what a request is known again."""

from __future__ import annotations

import gzip
import json
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.faults.rules import Breakage
from llmproxyd.model import End, RawHeaders, Request
from llmproxyd.providers.base import ErrorContext, ErrorKind
from llmproxyd.providers.registry import registry
from llmproxyd.verdicts.failure import LONGEST_WAIT, UNCLEAR, Failure, Sent, failure_of
from llmproxyd.verdicts.mark import READ, client_of, count_of, mark_of, normal

KEY = b"k" * 32
WALL = 1_700_000_000.0
JSON = (b"content-type", b"application/json")
BODY = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}'


def error(
    status: int, *fields: tuple[bytes, bytes], body: object = None, fault: str | None = None
) -> Failure:
    sent = Sent(status=status, headers=[JSON, *fields], body=json.dumps(body or {}).encode(), fault=fault)
    found = failure_of(sent, WALL)
    assert isinstance(found, Failure)
    return found


def coded(code: str, message: str = "No.") -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "param": None, "code": code}}


# Errors.


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, coded("context_length_exceeded"), "too long"),
        (429, coded("insufficient_quota"), "quota"),
        (429, coded("credit_balance_exhausted"), "quota"),
        (402, {}, "quota"),
        (400, coded("content_policy_violation"), "what the request says"),
        (401, {}, "key"),
        (403, {}, "access"),
        (404, {}, "no such thing"),
        (413, {}, "too large"),
        (422, {}, "request itself"),
        (
            400,
            {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens"}},
            "itself",
        ),
        (400, {"type": "error", "error": {"type": "x", "message": "prompt is too long: 9 > 8"}}, "too long"),
    ],
)
def test_same_request_would_fail_again(status: int, body: object, words: str) -> None:
    found = error(status, body=body)
    assert words in (found.hopeless or "")
    assert found.retryable is False


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_failure_that_may_pass(status: int) -> None:
    found = error(status, body=coded("rate_limit_exceeded"))
    assert (found.hopeless, found.retryable) == (None, True)


@pytest.mark.parametrize("status", [418, 501, 505, 498])
def test_nobody_knows_what_to_do_about_a_status_that_says_neither(status: int) -> None:
    found = error(status)
    assert (found.hopeless, found.retryable) == (None, None)


@pytest.mark.parametrize("provider", registry().values(), ids=lambda one: one.name)
@pytest.mark.parametrize("kind", ErrorKind)
def test_catalogue_is_read_alike_as_rehearsed_and_as_real(provider: Any, kind: ErrorKind) -> None:
    context = ErrorContext(kind=kind, operation="chat", model="m", request_id="r", wall=WALL)
    reply = provider.error(provider.spec(kind, "chat"), context)
    if reply.status < 400:
        return  # a soft error is an answer
    told = {}
    for fault in (kind.value, None):
        found = failure_of(
            Sent(status=reply.status, headers=reply.headers, body=reply.body, fault=fault), WALL
        )
        assert isinstance(found, Failure)
        told[fault] = bool(found.hopeless)
    assert told[kind.value] is (
        kind
        in {
            ErrorKind.CONTEXT_LENGTH,
            ErrorKind.QUOTA,
            ErrorKind.AUTHENTICATION,
            ErrorKind.PERMISSION,
            ErrorKind.NOT_FOUND,
            ErrorKind.CONTENT_FILTER,
            ErrorKind.TOO_LARGE,
        }
    )
    # A real one that nobody can be sure of counts as one that may pass.
    assert told[None] <= told[kind.value]


def test_openrouter_asks_for_money_of_requests_under_way_only_for_a_while() -> None:
    body = {
        "error": {"code": 402, "message": "x", "metadata": {"limit_source": "openrouter_in_flight_budget"}}
    }
    assert error(402, body=body).hopeless is None


def test_error_of_ours_that_may_pass_is_a_failure() -> None:
    found = failure_of(sent(status=503, ours=True, headers=[JSON, (b"retry-after", b"1")], body=b"{}"), WALL)
    assert isinstance(found, Failure)
    assert found.wait == 1.0


# What the client is asked to do.


@pytest.mark.parametrize(
    ("fields", "body", "wait", "by"),
    [
        ([(b"retry-after", b"2")], None, 2.0, "retry-after"),
        ([(b"Retry-After-Ms", b"250"), (b"retry-after", b"1")], None, 0.25, "retry-after-ms"),
        ([(b"retry-after", b"soon")], None, None, ""),
        (
            [(b"x-ratelimit-reset-requests", b"20s"), (b"x-ratelimit-remaining-requests", b"0")],
            None,
            None,
            "",
        ),
        ([], {"error": {"metadata": {"retry_after_seconds": 7}}}, 7.0, "retry_after_seconds"),
        ([(b"retry-after", b"999999")], None, LONGEST_WAIT, "retry-after"),
        (
            [],
            {
                "error": {
                    "code": 429,
                    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"}],
                }
            },
            26.0,
            "RetryInfo",
        ),
    ],
)
def test_wait_is_what_was_asked_for_in_so_many_words(
    fields: RawHeaders, body: object, wait: float | None, by: str
) -> None:
    found = error(429, *fields, body=body)
    assert (found.wait, found.told_by) == (wait, by)


def test_date_is_a_wait_in_whole_seconds() -> None:
    found = error(503, (b"retry-after", formatdate(WALL + 30, usegmt=True).encode()))
    assert (found.wait, found.slack) == (30.0, 1.0)


def test_client_is_told_whether_to_come_back() -> None:
    assert error(400, (b"x-should-retry", b"true")).hopeless is None
    assert error(400, (b"x-should-retry", b"true")).retryable is True
    refused = error(503, (b"x-should-retry", b"false"))
    assert (refused.again, refused.retryable) == (False, False)


# Answers that are none, or not whole.


def sent(**given: Any) -> Sent:
    return Sent(**{"status": 200, "headers": [JSON], "said": True, **given})


@pytest.mark.parametrize(
    ("given", "begun", "silent"),
    [
        ({"end": End.TRUNCATED}, True, False),
        ({"end": End.IDLE, "said": False}, False, False),
        ({"complete": False}, True, True),
        ({"trouble": {"message": "x", "code": "server_error"}, "complete": False}, True, False),
        ({"status": 0, "said": False}, False, False),
    ],
)
def test_answer_that_is_not_whole(given: dict[str, Any], begun: bool, silent: bool) -> None:
    found = failure_of(sent(**given), WALL)
    assert isinstance(found, Failure)
    assert (found.begun, found.silent) == (begun, silent)


@pytest.mark.parametrize("given", [{}, {"complete": True}, {"status": 304, "said": False}])
def test_good_answer_is_no_failure(given: dict[str, Any]) -> None:
    assert failure_of(sent(**given), WALL) is None


@pytest.mark.parametrize(
    "given",
    [
        {"end": End.CLIENT_GONE},
        {"end": End.CLIENT_GONE, "status": 429},
        {"end": End.IN_BAND_ERROR},
        {"fault": Breakage.GARBAGE, "complete": True},
        {"fault": Breakage.EMPTY, "complete": True},
        {"fault": Breakage.TRUNCATE},
        {"ours": True, "status": 400},
    ],
)
def test_answer_that_can_be_taken_either_way_tells_nothing(given: dict[str, Any]) -> None:
    assert failure_of(sent(**given), WALL) is UNCLEAR


def test_error_in_a_stream_may_be_hopeless_too() -> None:
    found = failure_of(sent(trouble={"code": "context_length_exceeded", "message": "x"}), WALL)
    assert isinstance(found, Failure)
    assert found.hopeless is not None


@given(st.integers(400, 599), st.binary(max_size=200), st.binary(max_size=40))
def test_no_answer_is_too_odd(status: int, body: bytes, wait: bytes) -> None:
    found = failure_of(Sent(status=status, headers=[JSON, (b"retry-after", wait)], body=body), WALL)
    assert isinstance(found, Failure)


# Known again.


def request(
    *fields: tuple[bytes, bytes], target: bytes = b"/v1/chat/completions", peer: str = "127.0.0.1:1"
) -> Request:
    return Request(b"POST", target, list(fields), peer=peer)


KEYED = ((b"authorization", b"Bearer sk-secret"), (b"user-agent", b"OpenAI/Python 2.54.0"))


def mark(asked: Request, body: bytes = BODY, test: str | None = None, upstream: str = "openai") -> bytes:
    client = client_of(KEY, asked, upstream, asked.target, test)
    assert client is not None
    return mark_of(KEY, client, asked, asked.target, body)


def test_retry_of_an_sdk_is_the_same_request() -> None:
    first = request(*KEYED, (b"x-stainless-retry-count", b"0"))
    again = request(*KEYED, (b"x-stainless-retry-count", b"2"), peer="127.0.0.1:9")
    assert mark(first) == mark(again)
    assert (count_of(first), count_of(again)) == (0, 2)


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({}, BODY.replace(b"hi", b"ho")),
        ({"target": b"/v1/responses"}, BODY),
        ({"target": b"/v1/chat/completions?alt=sse"}, BODY),
    ],
)
def test_other_body_or_place_is_another_request(change: dict[str, Any], body: bytes) -> None:
    assert mark(request(*KEYED, **change), body) != mark(request(*KEYED))


@pytest.mark.parametrize(
    "fields",
    [
        ((b"authorization", b"Bearer sk-other"), KEYED[1]),
        (KEYED[0], (b"user-agent", b"curl/8")),
        (*KEYED, (b"goose-session-id", b"7")),
    ],
)
def test_other_credential_agent_or_session_is_another_client(fields: RawHeaders) -> None:
    assert mark(request(*fields)) != mark(request(*KEYED))


def test_each_test_is_a_client_of_its_own() -> None:
    assert mark(request(*KEYED), test="a") != mark(request(*KEYED), test="b")
    assert mark(request(*KEYED), upstream="a") != mark(request(*KEYED), upstream="b")


def test_without_a_credential_the_address_is_the_client() -> None:
    assert mark(request(peer="10.0.0.1:1")) == mark(request(peer="10.0.0.1:2"))
    assert mark(request(peer="10.0.0.1:1")) != mark(request(peer="10.0.0.2:1"))


def test_without_either_nobody_is_known() -> None:
    assert client_of(KEY, request(peer="-"), "openai", b"/v1", None) is None


def test_credential_in_the_query_is_the_clients() -> None:
    one = request(target=b"/v1beta/models/g:generateContent?key=AIzaOne", peer="-")
    other = request(target=b"/v1beta/models/g:generateContent?key=AIzaTwo", peer="-")
    assert mark(one) != mark(other)
    client = client_of(KEY, one, "google", one.target, None)
    assert client is not None
    assert b"AIzaOne" not in client.id
    assert "AIza" not in repr(client)


def test_key_decides_on_the_marks_so_that_none_can_be_tried_out() -> None:
    asked = request(*KEYED)
    other = client_of(b"x" * 32, asked, "openai", asked.target, None)
    client = client_of(KEY, asked, "openai", asked.target, None)
    assert client is not None
    assert other is not None
    assert client.id != other.id
    assert client.name.startswith("OpenAI/Python 2.54.0 (")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda one: st.dictionaries(st.text(), one)
    )
)
def test_order_and_space_in_json_do_not_matter(value: Any) -> None:
    asked = request()
    other = json.loads(json.dumps(value), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert normal(asked, json.dumps(value, indent=3).encode()) == normal(asked, json.dumps(other).encode())


def test_boundary_of_a_form_and_time_of_a_gzip_do_not_matter() -> None:
    forms = []
    for boundary in (b"abc123", b"xyz789"):
        asked = request((b"content-type", b"multipart/form-data; boundary=" + boundary))
        forms.append(normal(asked, b"--%b\r\n\r\nx\r\n--%b--" % (boundary, boundary)))
    assert forms[0] == forms[1]
    asked = request((b"content-encoding", b"gzip"))
    assert normal(asked, gzip.compress(BODY, mtime=1)) == normal(asked, gzip.compress(BODY, mtime=2))


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"[" * 100_000, b"x" * (READ + 1), b'{"a": NaN}'])
def test_any_body_is_known_again(body: bytes) -> None:
    assert mark(request(*KEYED), body) == mark(request(*KEYED), body)


@pytest.mark.parametrize("agent", [b"", b"\x1b[31mred", b"x" * 5000, b"OpenAI/Python\xe9 1"])
def test_name_of_a_client_can_be_shown(agent: bytes) -> None:
    client = client_of(KEY, request((b"user-agent", agent)), "openai", b"/v1/\xe9\x01", None)
    assert client is not None
    assert client.name.isprintable()
    assert client.path.isprintable()
    assert len(client.name) < 80


@pytest.mark.parametrize("text", [b"-1", b"x", b"99999", b"", b"1.5"])
def test_count_that_is_none_is_not_counted(text: bytes) -> None:
    assert count_of(request((b"x-stainless-retry-count", text))) is None
