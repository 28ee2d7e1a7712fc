"""``faults.rules`` and ``faults.limits``: the keys of the file, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from llmproxyd.config.bodies import BODY, read_body
from llmproxyd.config.kinds import (
    FaultKindName,
    FaultModifier,
    FaultSpot,
    JitterShare,
    Positive,
    ProviderError,
    RuleName,
    UpstreamReference,
)
from llmproxyd.config.markers import POSITIVE, AtLeast, check
from llmproxyd.faults import language
from llmproxyd.faults.kinds import SILENT, kind_of, options_of, provider_error
from llmproxyd.faults.limits import Each, Limit
from llmproxyd.faults.mistakes import Incomplete, LanguageError
from llmproxyd.faults.options import EXCESS
from llmproxyd.faults.rules import Always, Breakage, FaultKind, Manner, Match, Rule, Share, Side
from llmproxyd.faults.values import at_of, jitter_of, media_of
from llmproxyd.units import Duration

_KEYS: Mapping[str, str] = {"event": "error"}
"""What an option of the operator's language is called here, where ``error`` is the kind."""


@dataclass(frozen=True, slots=True)
class FaultRule:
    """A standing fault, as written; :meth:`rule` is what it means.

    :param name: what it is called in logs and answers, and by ``fault rm``.
    :param error: the kind of error, or what breaks (``cut``).
    :param when: ``*`` for every request, a count or a share, as in the operator's language.
    :param percent: of requests, in place of ``when``.
    :param max: hits after which it is off.
    :param retry_after: seconds told to the client.
    :param after: so many eligible requests pass first.
    :param for_: seconds after which it is off; of ``stall`` and ``delay`` the silence.
    :param ttl: seconds after which a ``stall`` or a ``delay`` is off.
    :param place: ``upstream`` has it happen to attempts, so that retries and breakers see it.
    :param upstream: only requests to this one.
    :param model: only requests for these models; a glob.
    :param path: only requests with these paths; a glob.
    :param stream: only requests that ask for a stream, or only those that do not.
    :param at: where in the answer: ``start``, ``tool``, ``end``, a number of events, ``50%bytes``,
        ``1000B``.
    :param event: the kind of error that a ``stream_error`` tells.
    :param first_token: seconds before the first content, of ``slow``.
    :param per_event: seconds before each further event.
    :param tokens_per_second: pace of the content.
    :param jitter: share by which these waits differ, such as ``20%``.
    :param status: of the answer that ``status`` gives.
    :param body: the file that is its body.
    :param length: bytes by which a ``wrong_length`` is too large, or too small where negative.
    """

    name: RuleName
    error: FaultKindName
    when: FaultModifier = "*"
    percent: Annotated[float, AtLeast(0)] | None = None
    max: Annotated[int, AtLeast(1)] | None = None
    retry_after: Annotated[float, AtLeast(0)] | None = None
    after: Annotated[int, AtLeast(0)] = 0
    for_: Positive | None = None
    ttl: Positive | None = None
    place: Literal["client", "upstream"] = "client"
    upstream: UpstreamReference | None = None
    model: str | None = None
    path: str | None = None
    stream: bool | None = None
    at: FaultSpot | None = None
    event: ProviderError | None = None
    first_token: Duration | None = None
    per_event: Duration | None = None
    tokens_per_second: Annotated[float, POSITIVE] | None = None
    jitter: JitterShare | None = None
    status: Annotated[int, AtLeast(200)] | None = None
    body: Annotated[Path, check(BODY, read_body)] | None = None
    length: int | None = None

    def rule(self) -> Rule:
        """The rule for the choice of faults.

        :raises ValueError: it could never fire, or has no sense.
        """
        kind = kind_of(self.error)
        options = language.Options(
            match=Match(upstream=self.upstream, model=self.model, path=self.path, streaming=self.stream),
            after=self.after,
            lasts=self.ttl if kind in SILENT else self.for_,
            retry_after=self.retry_after,
            most=self.max,
            side=Side(self.place),
            manner=self._manner(kind),
            percent=self._share(),
            never=self.percent == 0,
        )
        return language.parse_rule(self.name, self.error, self.when, options)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        kind = kind_of(self.error)
        known = options_of(kind)
        strangers = [key for key in self._given() if _KEYS.get(key, key) not in known]
        for key in strangers:
            accepted = ", ".join(key for key in _names() if _KEYS.get(key, key) in known)
            yield key, f'"{self.error}" has no such key (accepted: {accepted})'
        if self.percent is not None and self.when != "*":
            yield "percent", f'found beside when: "{self.when}"; accepted: one of them'
        elif self.percent is not None and self.percent > 100:
            yield "percent", f"found {self.percent:g}; accepted: a number from 0 to 100"
        elif self.status is not None and self.status > 599:
            yield "status", f"found {self.status}; accepted: a status from 200 to 599"
        elif self.length == 0:
            yield "length", "found 0; accepted: a number of bytes other than 0"
        elif not strangers:
            yield from self._senseless()

    def _senseless(self) -> Iterator[tuple[str, str]]:
        try:
            self.rule()
        except Incomplete as error:
            yield {"delay": "for", "status": "status"}.get(self.error.lower(), "error"), str(error)
        except LanguageError as error:
            yield "percent" if self.percent is not None else "when", str(error)
        except ValueError as error:
            yield "body", str(error)

    def _manner(self, kind: FaultKind) -> Manner:
        body = self.body
        excess = EXCESS if kind == Breakage.WRONG_LENGTH and self.length is None else self.length or 0
        return Manner(
            at=None if self.at is None else at_of(self.at),
            error=None if self.event is None else provider_error(self.event),
            silence=self.for_ if kind in SILENT else None,
            first_token=self.first_token,
            per_event=self.per_event,
            tokens_per_second=self.tokens_per_second,
            jitter=0.0 if self.jitter is None else jitter_of(self.jitter),
            status=self.status or 0,
            file=None if body is None else body.name,
            body=b"" if body is None else read_body(body),
            media=Manner().media if body is None else media_of(body.name),
            excess=excess,
        )

    def _share(self) -> Share | Always | None:
        if not self.percent:
            return None
        return Always() if self.percent == 100 else Share(self.percent / 100)

    def _given(self) -> list[str]:
        """The keys of options that say anything."""
        defaults = {field.name: field.default for field in fields(self)}
        told = [name for name in defaults if getattr(self, name) != defaults[name]]
        return [name.rstrip("_") for name in told if name not in ("name", "error", "when")]


def _names() -> list[str]:
    """All keys of a rule."""
    return [field.name.rstrip("_") for field in fields(FaultRule)]


@dataclass(frozen=True, slots=True)
class LimitRule:
    """A rehearsed rate limit, as written; :meth:`limit` is what it means.

    :param name: what it is called in answers, and by ``limit rm``.
    :param rpm: requests a minute.
    :param tpm: tokens of models a minute.
    :param upstream: only requests to this one.
    :param model: only requests for these models; a glob.
    :param path: only requests with these paths; a glob.
    :param stream: only requests that ask for a stream, or only those that do not.
    :param key: ``each`` keeps an account for every key that clients present, ``all`` one for all.
    :param for_: seconds after which it is off.
    """

    name: RuleName
    rpm: Annotated[int, AtLeast(1)] | None = None
    tpm: Annotated[int, AtLeast(1)] | None = None
    upstream: UpstreamReference | None = None
    model: str | None = None
    path: str | None = None
    stream: bool | None = None
    key: Literal["each", "all"] = "each"
    for_: Positive | None = None

    def limit(self) -> Limit:
        """The limit."""
        return Limit(
            name=self.name,
            rpm=self.rpm,
            tpm=self.tpm,
            match=Match(upstream=self.upstream, model=self.model, path=self.path, streaming=self.stream),
            key=Each(self.key),
            lasts=self.for_,
        )

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if self.rpm is None and self.tpm is None:
            yield "", "limits nothing; accepted: rpm, tpm or both"
