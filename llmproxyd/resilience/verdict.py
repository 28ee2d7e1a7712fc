"""What an answer is taken for: by the operator's rules about bodies, and by the providers' own signs.

The signs are those of errors that the same request would meet again however often it is sent,
although their status often says otherwise: OpenAI's spent quota is a 429, as is a request that
alone is larger than a limit by the minute.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from llmproxyd.resilience.hints import error_of, names_retry_info

_TEXT = 16384
"""Characters of a message that are searched."""

_UNPAID = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_error",
        "payment_required",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
    }
)
_TOO_LONG = frozenset(
    {
        "context_length_exceeded",
        "context_window_exceeded",
        "exceed_context_size_error",
        "token_limit_exceeded",
        "max_tokens_exceeded",
        "string_too_long",
        "input_too_large",
        "request_too_large",
        "payload_too_large",
    }
)
_DENIED = frozenset(
    {
        "invalid_api_key",
        "api_key_invalid",
        "authentication",
        "authentication_error",
        "unauthenticated",
        "unauthorized",
        "permission_denied",
        "permission_error",
        "forbidden",
        "request_forbidden",
        "unsupported_country_region_territory",
    }
)
_TOO_LONG_TEXT = re.compile(
    r"context_length_exceeded|(?:maximum|available|model's) context (?:length|size|window)"
    r"|context (?:length|window|limit) (?:is |was )?exceeded"
    r"|exceeds? (?:the |your )?context (?:length|window|limit)"
    r"|(?:maximum|max) prompt length|(?:prompt|input) is too long|input too long|reduce the length of"
    r"|exceeds the maximum number of tokens allowed|too many tokens: total|max_new_tokens. must be <="
    r"|request too large for|request_too_large|payload size exceeds",
    re.IGNORECASE,
)
"""Unmistakable phrases only: a limit by the minute speaks of tokens and of exceeding, too."""

_CONTENT = frozenset(
    {
        "content_policy_violation",
        "content_filter",
        "invalid_prompt",
        "responsibleaipolicyviolation",
        "moderation",
        "refusal",
    }
)
"""Codes that find fault with what a request says."""

_UNPAID_TEXT = re.compile(r"credit balance is too low|insufficient (?:credits|balance)", re.IGNORECASE)
_QUOTA_TEXT = re.compile(r"exceeded your current quota", re.IGNORECASE)


def _pattern_problem(pattern: str) -> str | None:
    """Why *pattern* is no rule, ``None`` if it is one."""
    if not pattern:
        return "found an empty text, which every answer matches; accepted: a regular expression"
    try:
        re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        place = "" if error.pos is None else f" at character {error.pos + 1}"
        return f"it is no regular expression: {error.msg}{place}"
    except (OverflowError, RecursionError):
        return "it is too large for a regular expression"
    return None


@dataclass(frozen=True, slots=True)
class Recategorize:
    """An answer whose body matches is taken for one with another status.

    :param pattern: regular expression, searched in the body, upper and lower case alike.
    :param original_status: only answers with it, ``None`` for any.
    :param new_status: what the policy sees; the client still gets the upstream's own answer.
    :param description: for whoever reads the file.
    """

    pattern: str
    new_status: int
    original_status: int | None = None
    description: str = ""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys."""
        if (wrong := _pattern_problem(self.pattern)) is not None:
            yield "pattern", wrong
        if not 400 <= self.new_status <= 599:
            yield "new_status", f"found {self.new_status}; accepted: the status of an error, 400 to 599"
        if self.original_status is not None and not 100 <= self.original_status <= 599:
            yield "original_status", f"found {self.original_status}; accepted: a status, 100 to 599"


@dataclass(frozen=True, slots=True)
class HardStop:
    """An answer whose body matches is final: no retry, and a word for the user.

    :param pattern: regular expression, searched in the body, upper and lower case alike.
    :param user_message: what the client is told.
    :param description: for whoever reads the file.
    :param preserve_original_response: put the upstream's own body beneath it.
    """

    pattern: str
    user_message: str
    description: str = ""
    preserve_original_response: bool = True

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys."""
        if (wrong := _pattern_problem(self.pattern)) is not None:
            yield "pattern", wrong


class Verdicts:
    """The rules of one policy, compiled once.  It is false when there are none.

    :raises re.error: a pattern is no regular expression.
    """

    __slots__ = ("_any", "_recategorize", "_stop")

    def __init__(self, recategorize: Iterable[Recategorize] = (), hard_stop: Iterable[HardStop] = ()) -> None:
        self._recategorize = [(re.compile(rule.pattern, re.IGNORECASE), rule) for rule in recategorize]
        self._stop = [(re.compile(rule.pattern, re.IGNORECASE), rule) for rule in hard_stop]
        self._any = bool(self._recategorize or self._stop)

    def __bool__(self) -> bool:
        return self._any

    def recategorized(self, status: int, text: str) -> Recategorize | None:
        """The first rule by which an answer with *status* and body *text* is taken for another one."""
        for pattern, rule in self._recategorize:
            if rule.original_status in (None, status) and pattern.search(text):
                return rule
        return None

    def stopped(self, status: int, text: str) -> HardStop | None:
        """The first rule by which such an answer is final.

        :param status: no rule asks for it as yet.
        """
        for pattern, rule in self._stop:
            if pattern.search(text):
                return rule
        return None


def hopeless(code: str | None, body: object | None) -> str | None:
    """In a word or two, why the same request would fail again; ``None`` where it may not.

    :param code: as the provider words it, any case.
    :param body: the answer's JSON value.
    """
    return too_long(code, body) or unpaid(code, body)


def too_long(code: str | None, body: object | None) -> str | None:
    """That the request has more than the model takes, whoever asks; ``None`` if it is not that."""
    for known in sorted(_codes(code, body) & _TOO_LONG):
        return known
    text, hidden = _texts(body, error_of(body))
    found = _TOO_LONG_TEXT.search(text) or _TOO_LONG_TEXT.search(hidden)
    return "a request that is too long" if found else None


def unpaid(code: str | None, body: object | None) -> str | None:
    """That the account has nothing left to spend; ``None`` if it is not that."""
    for known in sorted(_codes(code, body) & _UNPAID):
        return known
    error = error_of(body)
    text, _ = _texts(body, error)
    if _UNPAID_TEXT.search(text):
        return "a balance that is too low"
    # Google says when a quota is filled up again if that is by the minute; if it does not, it is by
    # the day or there is none.
    if (_QUOTA_TEXT.search(text) or _quota_failure(error)) and not names_retry_info(body):
        return "a spent quota"
    return None


def denied(status: int, code: str | None, body: object | None) -> bool:
    """Whether it was for who asks: another attempt with the same credential or account is no use."""
    return status in (401, 402, 403, 407) or not _DENIED.isdisjoint(_codes(code, body))


def about_the_request(code: str | None, body: object | None) -> bool:
    """Whether it was refused for what it says: flagged by a moderation, blocked by a filter."""
    metadata = error_of(body).get("metadata")
    flagged = isinstance(metadata, Mapping) and ("flagged_input" in metadata or "reasons" in metadata)
    return flagged or not _CONTENT.isdisjoint(_codes(code, body))


def in_flight(body: object | None) -> bool:
    """Whether OpenRouter's 402 is for requests under way, whose cost is not settled yet."""
    metadata = error_of(body).get("metadata")
    return isinstance(metadata, Mapping) and metadata.get("limit_source") == "openrouter_in_flight_budget"


def _codes(code: str | None, body: object | None) -> set[str]:
    """Every code that an error has, in lower case, wherever its provider puts it."""
    found: list[object] = [code]
    error = error_of(body)
    for part in (error, body, error.get("details")):
        if isinstance(part, Mapping):
            found += [part.get(key) for key in ("code", "type", "status", "error_code", "error_type")]
    details = error.get("details")
    if isinstance(details, list):
        found += [detail.get("reason") for detail in details[:100] if isinstance(detail, Mapping)]
    return {one.lower() for one in found if isinstance(one, str) and len(one) <= 64}


def _texts(body: object | None, error: Mapping[object, object]) -> tuple[str, str]:
    """The messages of an error; and that of whoever OpenRouter asked, which is not about our account."""
    found: list[object] = [error.get("message")]
    if isinstance(body, Mapping):
        found += [body.get("message"), body.get("error")]
    metadata = error.get("metadata")
    hidden = metadata.get("raw") if isinstance(metadata, Mapping) else None
    told = "\n".join(one[:_TEXT] for one in found if isinstance(one, str))
    return told, hidden[:_TEXT] if isinstance(hidden, str) else ""


def _quota_failure(error: Mapping[object, object]) -> bool:
    details = error.get("details")
    return isinstance(details, list) and any(
        isinstance(detail, Mapping) and str(detail.get("@type"))[-80:].endswith("google.rpc.QuotaFailure")
        for detail in details[:100]
    )
