"""What was seen becomes a scenario: rows of the journal to steps, pure.

Real failures and rehearsed ones alike.  A row has the members of :class:`llmproxyd.model.Finished` under
the same names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from llmproxyd.faults.language import LanguageError
from llmproxyd.faults.rules import Match, Rule, Side, Times
from llmproxyd.faults.scenariotext import MOST_STEPS, OK, parse_step
from llmproxyd.faults.words import LETTERS, line_of
from llmproxyd.model import End
from llmproxyd.providers.base import EndpointKind, ErrorKind, Provider

Row = Mapping[str, Any]

USUAL: Mapping[int, ErrorKind] = {
    401: ErrorKind.AUTHENTICATION,
    403: ErrorKind.PERMISSION,
    404: ErrorKind.NOT_FOUND,
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.RATE_LIMIT,
    500: ErrorKind.SERVER_ERROR,
    502: ErrorKind.BAD_GATEWAY,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.GATEWAY_TIMEOUT,
    529: ErrorKind.OVERLOADED,
}
"""What a status most often stands for.  400 and 422 stand for too much."""

REFUSE, NEVER, CUT = "refuse", "never", "cut"
STALLED, SILENT, FAILED = "stall at=start", "stall", "stream_error"

CODES: Mapping[str, str] = {
    **dict.fromkeys(("upstream_unreachable", "connect_timeout", "pool_timeout"), REFUSE),
    **dict.fromkeys(("headers_timeout", "total_timeout"), NEVER),
    "first_content_timeout": STALLED,
    "idle_timeout": SILENT,
    "upstream_protocol_error": CUT,
    "empty_stream": "empty",
}
"""What an upstream did that gave no answer, or broke off, by the code that it was given."""

OUTCOMES: Mapping[str, str] = {
    **dict.fromkeys(
        ("unreachable", "could not be connected to in time", "had no connection free in time"), REFUSE
    ),
    **dict.fromkeys(("did not answer in time", "was not done in time"), NEVER),
    "said nothing in time": STALLED,
    "fell silent": SILENT,
    "broke off": CUT,
    "sent an empty stream": "empty",
}
"""The same by the words in which a failed attempt is told."""

_UPSTREAM = f" place={Side.UPSTREAM}"
_STATUS = re.compile(r"\((\d{3})\)\Z")
_ONCE = re.compile(r"\A(\S+(?: [a-z_]+)?) 1(?= |\Z)")


@dataclass(frozen=True, slots=True)
class Exported:
    """Steps that were made of what was seen.

    :param lines: each step, as it is written.
    :param requests: that they were made of.
    :param failed: steps that are no ``ok``, each counted as often as it comes.
    :param left: further steps that are too many.
    """

    lines: tuple[str, ...]
    requests: int
    failed: int
    left: int = 0


def fault_line(rule: Rule) -> str:
    """What *rule* does to one request that it hits, as a step; with ``place=upstream`` where it does so."""
    once = replace(rule, when=Times(1), match=Match(), after=0, lasts=None, most=None)
    return _ONCE.sub(r"\1", line_of(once))


def of_requests(rows: Iterable[Row], providers: Mapping[str, Provider]) -> Exported:
    """The steps that requests took, as their clients saw it.

    :param rows: in any order; those that a scenario would not have concerned are left out.
    """
    concerned = sorted((row for row in rows if concerns(row)), key=lambda row: int(row["number"]))
    return _exported([_as_client(row, providers) for row in concerned], len(concerned))


def of_attempts(
    rows: Iterable[Row], providers: Mapping[str, Provider], explain: Callable[[Row], Sequence[Row]]
) -> Exported:
    """The steps that attempts took, as the proxy saw them.

    :param explain: the attempts of a request of several, each with its ``outcome``.
    """
    concerned = sorted(
        (row for row in rows if row["attempts"] and concerns(row)), key=lambda row: int(row["number"])
    )
    lines: list[str] = []
    for row in concerned:
        provider = providers.get(row["provider"])
        if row["attempts"] > 1:
            last = row["attempts"]
            tries = [one for one in explain(row) if one["number"] < last]
            lines += [_of_outcome(str(one["outcome"]), provider) for one in tries]
        lines.append(_as_attempt(row, provider))
    return _exported(lines, len(concerned))


def concerns(row: Row) -> bool:
    """Whether the request of *row* came as far as faults are chosen.

    One that was refused before (at the door, by an allowlist, for its form) took no step.
    """
    if row["kind"] != EndpointKind.INFERENCE:
        return False
    refused = row["code"] is not None and not row["attempts"] and row["fault"] is None
    return not refused or row["status"] >= 500


def text_of(exported: Exported, *, name: str, side: Side, about: str) -> str:
    """The file of a scenario (YAML).

    :param about: where it comes from, in a line.
    """
    lines = [f"# {about}", f"name: {json.dumps(name)}", "scope: all", f"place: {side}", "steps:"]
    lines += [f"  - {json.dumps(line)}" for line in exported.lines]
    return "\n".join(lines) + "\n"


def _exported(lines: Sequence[str], requests: int) -> Exported:
    """Equal steps that follow each other become one; what passes at the end is all that follows."""
    steps: list[str] = []
    for line, group in groupby(lines):
        count = sum(1 for _ in group)
        steps.append(line if count == 1 else f"{line} x{count}")
    if lines and lines[-1] == OK:
        steps[-1] = f"{OK} *"
    left = max(len(steps) - MOST_STEPS, 0)
    return Exported(tuple(steps[:MOST_STEPS]), requests, sum(line != OK for line in lines), left)


def _as_client(row: Row, providers: Mapping[str, Provider]) -> str:
    """What the client of *row* saw."""
    injected = row["injected"]
    if injected is not None and not injected.endswith(_UPSTREAM):
        return _step(injected)
    if row["status"] >= 400 and row["end"] != End.CLIENT_GONE:
        return _of_status(row["status"], providers.get(row["provider"]))
    return _of_end(row)


def _as_attempt(row: Row, provider: Provider | None) -> str:
    """What the last attempt of *row* came to."""
    injected, code = row["injected"], row["code"]
    if injected is not None and not injected.endswith(_UPSTREAM):
        # Whatever its client saw, the attempt itself went well.
        return OK
    if injected is not None and row["attempts"] == 1:
        return _step(injected.removesuffix(_UPSTREAM))
    if row["end"] == End.COMPLETE and code in CODES:
        return CODES[code]
    if row["status"] >= 400 and row["end"] != End.CLIENT_GONE:
        return _of_status(row["status"], provider)
    return _of_end(row)


def _of_end(row: Row) -> str:
    """How the answer ended that began well."""
    end, sent = row["end"], row["sent"]
    if end == End.TRUNCATED:
        return f"{CUT} at={sent}B" if sent else f"{CUT} at=start"
    if end == End.IDLE:
        return f"{SILENT} at={sent}B" if sent else STALLED
    if end == End.IN_BAND_ERROR:
        return FAILED
    return OK


def _of_outcome(outcome: str, provider: Provider | None) -> str:
    """The step for a failed attempt, by the words in which it is told."""
    if status := _STATUS.search(outcome):
        return _of_status(int(status.group(1)), provider)
    return OUTCOMES.get(outcome, f"{FAILED} at=start")


def _of_status(status: int, provider: Provider | None) -> str:
    """The provider's own error where its catalogue has one of this *status*, else any answer with it."""
    usual = USUAL.get(status)
    if provider is not None and usual is not None:
        kinds = [kind for kind, spec in provider.errors.items() if spec.status == status]
        if usual in kinds:
            return _error(usual)
        if len(kinds) == 1:
            return _error(kinds[0])
    return _step(f"status={status}")


def _error(kind: str) -> str:
    return LETTERS.get(kind, f"error {kind}")


def _step(text: str) -> str:
    """*text*, if it is a step; else one that passes."""
    try:
        return parse_step(text).line
    except LanguageError:
        return OK
