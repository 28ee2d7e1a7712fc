"""The ways in which a secret may be written: escaped, quoted, coded, or cut out of what was coded."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import quote, quote_plus

LEAST = 6
"""Characters that a secret has at least to be looked for within text.

A shorter one (the dummy key ``x``) stands by chance in any text: to take it out would ruin the
text, and the holes would tell it.  As a whole field or argument it is hidden all the same.
"""

Spellings = tuple[tuple[str, int], ...]
"""What to look for, and how far apart two places of it may be."""


def spellings(secrets: Iterable[str]) -> Spellings:
    """All that each of *secrets* may be written as, but for those that are too short."""
    forms = dict.fromkeys(form for text in secrets if len(text) >= LEAST for form in _of(text))
    return tuple((form, _step(form)) for form in forms)


def _of(secret: str) -> Iterator[str]:
    """The ways in which *secret* may be written."""
    texts = [secret]
    with suppress(UnicodeError):  # fields are read as Latin-1, bodies as UTF-8
        texts.append(secret.encode("latin-1").decode())
    for text in texts:
        yield text
        raw = text.encode("utf-8", "surrogatepass")
        for escaped in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
            yield escaped
            yield re.sub("%..", lambda match: match.group().lower(), escaped)
        # Errors are handed on as JSON within JSON.
        once = {escaped for ascii_only in (True, False) for escaped in _escaped(text, ascii_only)}
        yield from once
        for escaped in once:
            yield from (*_escaped(escaped, True), *_escaped(escaped, False))
        for before in range(3):
            # Wherever it stands within what was coded: less what its neighbours decide.
            coded = b64encode(bytes(before) + raw)
            start = (0, 2, 3)[before]
            end = len(raw) + before
            inner = coded[start : end * 8 // 6].decode()
            if len(inner) >= LEAST:
                yield inner
                yield inner.replace("+", "-").replace("/", "_")


def _escaped(text: str, ascii_only: bool) -> tuple[str, str]:
    """*text* as it stands in a JSON string; some escape the slash too."""
    escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    return escaped, escaped.replace("/", "\\/")


def _step(form: str) -> int:
    """How far behind one place of *form* the next may begin: they can overlap.

    Of one that only repeats something short, overlaps are passed over: there is little to hide.
    """
    period = (form + form).find(form, 1)
    return period if period * 2 > len(form) else len(form)


def find_all(text: str, form: str, step: int, spans: list[tuple[int, int]]) -> None:
    """Add to *spans* where *form* stands in *text*.

    :param step: characters from one place to the next at least.
    """
    at = text.find(form)
    while at >= 0:
        spans.append((at, at + len(form)))
        at = text.find(form, at + step)
