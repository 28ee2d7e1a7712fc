"""Paths that are other ones at the upstream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llmproxyd.transform.rules import PathRewrite


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Where a request goes instead.

    :param target: raw path and query.
    :param root: below the origin of the upstream's base URL, without its path.
    """

    target: bytes
    root: bool


def rewrite(rules: Iterable[PathRewrite], target: bytes) -> Rewritten | None:
    """*target* by the first of *rules* that matches its path, ``None`` when none does.

    Bytes are compared as they came, percent-encoding and case included; the query and what a
    ``*`` stands for are handed on unchanged.

    :param target: raw path and query, without what selected the upstream.
    """
    path, mark, query = target.partition(b"?")
    for rule in rules:
        match, to = rule.match.encode(), rule.to.encode()
        if match.endswith(b"*"):
            if not path.startswith(match[:-1]):
                continue
            if to.endswith(b"*"):
                to = to[:-1] + path[len(match) - 1 :]
        elif path != match:
            continue
        return Rewritten(to + mark + query, rule.root)
    return None
