"""The story of one request: what ``explain`` tells, as JSON takes it and for people.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from llmproxyd.model import BreakerChanged, CredentialRested, End, Finished, Retrying
from llmproxyd.observe.eventjson import time_text
from llmproxyd.redaction import printable

Row = dict[str, Any]
Changes = Iterable[tuple[float, BreakerChanged | CredentialRested]]

SHOWN = 12
"""Attempts that are shown to people, and so are changes of breakers and keys: it is to be one screen."""

_LABEL = 11
_UPSTREAM = 14


class Try(NamedTuple):
    """An attempt that failed, and after which another one followed.

    :param number: from 1, over all attempts of its request.
    :param wall: seconds since the epoch, when it had failed.
    """

    number: int
    wall: float
    event: Retrying


@dataclass(frozen=True, slots=True)
class Moment:
    """When a request was under way, seconds since the epoch.

    :param changes: of breakers and keys, of all upstreams and times, oldest first.
    """

    ended: float
    began: float
    changes: Changes


def finished(row: Row, event: Finished, tries: Sequence[Try], decision: str | None, moment: Moment) -> Row:
    """All that is known of a request that is over.

    :param row: what is told of it in a line.
    :param tries: its attempts, but for the last one.
    :param decision: why no further attempt followed, where somebody noted it.
    """
    told = [_told(one, moment.began) for one in tries]
    if event.attempts > (tries[-1].number if tries else 0):
        told.append(
            {
                "number": event.attempts,
                "upstream": event.upstream,
                "after": round(event.duration, 6),
                "outcome": _outcome(event),
                "upstream_id": event.upstream_id,
                "wait": None,
                "then": decision,
            }
        )
    names = _upstreams(tries) | {event.upstream}
    return {
        "state": "finished",
        "started": moment.began,
        **row,
        "attempts": told,
        "changes": list(_concerning(names, moment)),
    }


def under_way(request_id: str, tries: Sequence[Try], changes: Changes) -> Row:
    """What is known of a request that has failed attempts behind it, and is not over."""
    since = Moment(inf, tries[0].wall, changes)
    return {
        "state": "under way",
        "id": request_id,
        "number": tries[0].event.number,
        "attempts": [_told(one, since.began) for one in tries],
        "changes": list(_concerning(_upstreams(tries), since)),
    }


def _upstreams(tries: Sequence[Try]) -> set[str]:
    return {name for one in tries for name in (one.event.upstream, one.event.to)}


def _told(one: Try, began: float) -> Row:
    event = one.event
    return {
        "number": one.number,
        "upstream": event.upstream,
        "after": _since(began, one.wall),
        "outcome": event.failed,
        "upstream_id": event.upstream_id,
        "wait": round(event.delay, 6),
        "then": _then(event),
    }


def _then(event: Retrying) -> str:
    """What followed, for people."""
    if event.to != event.upstream:
        return f"{event.to} instead"
    return f"retry {event.retry} of {event.of}" if event.retry else "another key"


def _outcome(event: Finished) -> str:
    """What the last attempt came to, for people."""
    if event.cache == "hit":
        return "not modified: the cache's entry still holds"
    if event.cache == "stale":
        return "failed: a stale entry of the cache answered"
    why = (
        "" if event.code is None else event.code if event.detail is None else f"{event.code}: {event.detail}"
    )
    if event.end is End.CLIENT_GONE or event.code == "client_gone":
        why = "the client left"
    if event.end is End.IN_BAND_ERROR:
        why = "an error within the stream"
    if event.began is None or (event.failed and event.end is End.COMPLETE):
        return why or str(event.status)
    return f"{event.status}, then {why}" if why else str(event.status)


def _concerning(names: set[str], moment: Moment) -> Iterator[Row]:
    """What changed at the upstreams *names* while it was under way, and what had last changed before.

    A breaker that was open when it arrived is what explains it.
    """
    before: dict[str, tuple[float, BreakerChanged]] = {}
    during = []
    for wall, change in moment.changes:
        upstream = change.name.partition("/")[0] if isinstance(change, BreakerChanged) else change.upstream
        if upstream not in names or wall > moment.ended:
            continue
        if wall >= moment.began:
            during.append((wall, change))
        elif isinstance(change, BreakerChanged):
            before[change.name] = (wall, change)
    for wall, change in [*(one for one in before.values() if one[1].after != "closed"), *during]:
        yield {"time": wall, "after": _since(moment.began, wall), **_change(change)}


def _change(change: BreakerChanged | CredentialRested) -> Row:
    if isinstance(change, BreakerChanged):
        words = f"breaker {change.name}: {change.before} -> {change.after}, {change.cause}"
        if change.seconds > 0:
            words += f"; next probe in {_seconds(change.seconds)}"
        return {"breaker": change.name, "state": change.after, "what": words}
    words = f"{change.upstream}: key {change.which} rests for {_seconds(change.seconds)}"
    return {"breaker": None, "state": None, "what": f"{words} after a {change.status}; {change.left} left"}


def _since(began: float, wall: float) -> float:
    return round(wall - began, 6)


# For people.


def explain_text(told: Mapping[str, Any]) -> str:
    """What :meth:`~llmproxyd.observe.journal.Journal.explain` tells, in a screen of whole lines."""
    lines = [_title(told), *_facts(told)]
    lines += _part("attempts", [_try_line(one) for one in told["attempts"]], _attempts(told))
    lines += _part("meanwhile", [_change_line(one) for one in told["changes"]], "")
    lines += _ending(told)
    return "".join(f"{_shown(line).rstrip()}\n" for line in lines)


def _title(told: Mapping[str, Any]) -> str:
    title = f"Request {told['id']} (#{told['number']}), "
    return title + ("under way" if told["state"] != "finished" else time_text(told["started"]))


def _facts(told: Mapping[str, Any]) -> Iterator[str]:
    """What it was, and what was done before any upstream was asked."""
    if told["state"] != "finished":
        return
    yield _line("asked for", f"{told['method']} {told['path']} by {told['peer']}")
    yield _line("detected", _detected(told))
    if told["model"] is not None or told["response_model"] is not None:
        answered = told["response_model"]
        by = f", answered by {answered}" if answered not in (None, told["model"]) else ""
        yield _line("model", f"{told['model'] or 'not looked at'}{by}")
    if told["project"] is not None:
        yield _line("let in", f"project {told['project']}, token {told['token']}")
    yield _line("fault", _fault(told))
    if told["cache"] is not None:
        yield _line("cache", told["cache"])
    if told["traceparent"] is not None:
        yield _line("trace", told["traceparent"])


def _fault(told: Mapping[str, Any]) -> str:
    """The fault that was chosen, as the operator would write it."""
    if told["fault"] is None:
        return "none injected"
    line = told.get("injected")
    by = f", by {line}" if line else ""
    never = "; the answer never came to its place" if told.get("unreached") else ""
    return f"injected {told['fault']}{by}{never}"


def _detected(told: Mapping[str, Any]) -> str:
    if told["provider"] == "-":
        return "nothing: it was refused before"
    to = "no upstream" if told["upstream"] == "-" else f"upstream {told['upstream']}"
    return f"{told['provider']}, {told['operation']} ({told['kind']}), {to}"


def _attempts(told: Mapping[str, Any]) -> str:
    """Where none are listed."""
    if told["state"] != "finished":
        return ""
    if told["fault"] is not None:
        return "none: the answer was injected"
    if told["cache"] in ("hit", "stale"):
        return "none: the cache answered"
    return "none"


def _try_line(one: Mapping[str, Any]) -> str:
    at = f"+{_seconds(one['after'])}"
    line = f"{one['number']:>3}  {one['upstream']:<{_UPSTREAM}} {at:>9}  {one['outcome']}"
    if one["upstream_id"] is not None:
        line += f" [{one['upstream_id']}]"
    if one["wait"]:
        line += f", waited {_seconds(one['wait'])}"
    return line + (f", {one['then']}" if one["then"] is not None else "")


def _change_line(one: Mapping[str, Any]) -> str:
    if one["after"] < 0:
        return f"{'before':>{_UPSTREAM}}  {one['what']} ({time_text(one['time'])})"
    return f"{'+' + _seconds(one['after']):>{_UPSTREAM}}  {one['what']}"


def _part(label: str, lines: list[str], otherwise: str) -> Iterator[str]:
    """*lines* under one label, those in the middle left out where there are too many."""
    left_out = len(lines) - SHOWN
    if left_out > 1:
        lines = [*lines[: SHOWN // 2], f"     … {left_out} more …", *lines[-(SHOWN // 2) :]]
    if lines:
        yield _line(label, lines[0])
        yield from (_line("", line) for line in lines[1:])
    elif otherwise:
        yield _line(label, f"  {otherwise}")


def _ending(told: Mapping[str, Any]) -> Iterator[str]:
    """What the client got, and how long it took."""
    if told["state"] != "finished":
        return
    stream = "a stream, " if told["streamed"] else ""
    yield _line("answer", f"{told['status']}, {stream}{_ENDS[told['end']]}, {told['sent']} bytes")
    if told["code"] is not None:
        detail = "" if told["detail"] is None else f": {told['detail']}"
        whom = " (the upstream is to blame)" if told["failed"] else ""
        yield _line("why", f"{told['code']}{detail}{whom}")
    parts = [
        f"{what} after {_seconds(told[name])}"
        for name, what in (("began", "head"), ("first", "first content"))
        if told[name] is not None
    ]
    yield _line("times", ", ".join([*parts, f"{_seconds(told['duration'])} in all"]))
    if told["usage"]:
        counts = ", ".join(f"{name.removesuffix('_tokens')} {count}" for name, count in told["usage"].items())
        cost = "" if told["cost"] is None else f"; cost {told['cost']}"
        finish = "" if told["finish"] is None else f"; finished: {told['finish']}"
        yield _line("tokens", counts + cost + finish)


_ENDS = {
    "complete": "complete",
    "truncated": "cut off by the upstream",
    "idle": "cut off after silence",
    "client_gone": "the client left",
    "in_band_error": "with an error within",
}


def _shown(line: str) -> str:
    """*line* without what would begin another one, or move the cursor."""
    if line.isprintable():
        return line
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in printable(line))


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}} {text}"


def _seconds(seconds: float) -> str:
    """*seconds* with as many places as matter."""
    places = 3 if seconds < 1 else 2 if seconds < 10 else 1
    return f"{seconds:.{places}f}".rstrip("0").rstrip(".") + " s"
