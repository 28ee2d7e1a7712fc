"""What becomes of a rule or a limit that an operator sets: the body it names, an end, its data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from llmproxyd.config.scenariofile import body_of
from llmproxyd.faults.language import LanguageError
from llmproxyd.faults.limitlines import describe_limit
from llmproxyd.faults.limits import Working
from llmproxyd.faults.rules import Rule


def completed(rule: Rule, folder: Path | None) -> Rule:
    """*rule* with the body that it names.

    :param folder: where the file is; ``None`` where none may be read.
    :raises LanguageError: it cannot be read.
    """
    if rule.manner.file is None:
        return rule
    if folder is None:
        raise LanguageError("body= names a file, and none may be read here")
    try:
        body = body_of(rule.manner.file, folder)
    except ValueError as error:
        raise LanguageError(str(error)) from None
    return replace(rule, manner=replace(rule.manner, body=body))


def told_limit(one: Working, now: float) -> dict[str, Any]:
    """A limit at work, as JSON takes it."""
    limit = one.limit
    return {
        "name": limit.name,
        "rpm": limit.rpm,
        "tpm": limit.tpm,
        "key": str(limit.key),
        "words": describe_limit(one, now),
        "passed": one.passed,
        "refused": one.refused,
        "ends_in": None if one.ends is None else round(max(0.0, one.ends - now), 3),
    }
