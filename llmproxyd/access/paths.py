r"""Paths as an upstream may read them, and the patterns that they are held against.

Servers differ in what they make of a path: some decode ``%2F`` to a slash, some decode twice, merge
slashes, drop ``;parameters``, resolve ``..``, take ``\\`` for ``/``, or leave a slash at the end out.
A path is held against the patterns in every reading that a server could sensibly have of it, and
all must be allowed.  Where readings are too many or too strange to be told, there are none, and
the path is refused.  Clients of model APIs send plain paths; these have one reading.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

MAX_PATH = 4096
"""Bytes of a path that is held against patterns."""

_NAMED = r"-A-Za-z0-9._~!$&'()*+,=:@"
"""What RFC 3986 §3.3 has in a segment, less ``;``, which some servers cut at."""

_PLAIN = re.compile(rf"(?:/(?!\.+(?:/|\Z))[{_NAMED}]+)+".encode())
_CODED = re.compile(rf"/(?:[{_NAMED}/]|%[0-9A-Fa-f]{{2}})*".encode())
_ENCODED_SLASH = re.compile(rb"%2[Ff]")
_STRUCTURAL = frozenset("%\\?#;\x7f")
"""Once decoded: what a server that decodes again, or later, would cut or join at."""

_MARK = "\0"
"""Stands for an encoded slash; an encoded NUL is refused before."""

_PATTERN_SEGMENT = re.compile(r"[^\x00-\x20\x7f%\\?#;/]+")


def readings(path: bytes) -> tuple[str, ...]:
    """All ways in which a server may read the raw *path*; none if that cannot be told.

    Decoded, with ``%2F`` as it is and as a slash, and without a slash at the end.
    """
    if len(path) > MAX_PATH:
        return ()
    if _PLAIN.fullmatch(path):
        return (path.decode("ascii"),)
    text = _decoded(path)
    if text is None:
        return ()
    found = dict.fromkeys((text.replace(_MARK, "%2F"), text.replace(_MARK, "/")))
    if not all(map(_is_clean, found)):
        return ()
    found.update(dict.fromkeys(one[:-1] for one in tuple(found) if one.endswith("/") and len(one) > 1))
    return tuple(found)


def is_plain(path: bytes) -> bool:
    """Whether there is one way alone to read the raw *path*."""
    return path == b"/" or _PLAIN.fullmatch(path) is not None


def _decoded(path: bytes) -> str | None:
    """*path* decoded once, an encoded slash as :data:`_MARK`; ``None`` where that leaves a doubt."""
    if not _CODED.fullmatch(path) or b"%00" in path:
        return None
    try:
        # Strict: an overlong form of a slash or a dot is no UTF-8.
        text = unquote_to_bytes(_ENCODED_SLASH.sub(b"%00", path)).decode()
    except UnicodeDecodeError:
        return None
    for char in text:
        if char in _STRUCTURAL or (char < " " and char != _MARK):
            return None
        if char > "\x7f" and unicodedata.category(char)[0] not in "LMN":
            return None
    # Compatibility forms: ``．．／`` is ``../`` to a server that normalises.
    return text if text.isascii() or unicodedata.is_normalized("NFKC", text) else None


def _is_clean(path: str) -> bool:
    """Whether no segment is empty, but for the last, or made of dots (some drop spaces, too)."""
    _, *inner, last = path.split("/")
    return all(segment.strip(". ") for segment in inner) and (not last or bool(last.strip(". ")))


def problem(pattern: str) -> str | None:
    """What is wrong with a *pattern*, in words; ``None`` if nothing is."""
    if not pattern.startswith("/"):
        return 'accepted: a path that starts with "/"'
    if "?" in pattern or "#" in pattern:
        return "accepted: a path alone; arguments of the query are for params"
    if "%" in pattern:
        return "accepted: a path in the clear, without percent-encoding"
    if len(pattern) > MAX_PATH:
        return f"accepted: {MAX_PATH} characters at most"
    segments = pattern.removesuffix("/").split("/")[1:]
    for segment in segments:
        if not segment.strip("."):
            return "accepted: a path without empty segments and without those of dots"
        if not _PATTERN_SEGMENT.fullmatch(segment):
            return r"accepted: visible characters, without \ and ;"
        if "**" in segment and segment != "**":
            return 'accepted: ** between two slashes, or at the end ("/v1/files/**")'
    if segments.count("**") + pattern.endswith("/") > 1:
        return "accepted: ** once at most; a slash at the end stands for one"
    return None


class Paths:
    """Patterns of paths, ready to be held against many.

    Exact, prefix (with a slash at its end), or glob: ``*`` stands for anything but a slash, ``**``
    for anything.

    :raises ValueError: a pattern has a :func:`problem`.
    """

    __slots__ = ("_exact", "_globs")

    def __init__(self, patterns: Iterable[str]) -> None:
        exact, globs = set(), []
        for pattern in patterns:
            wrong = problem(pattern)
            if wrong is not None:
                raise ValueError(f"the pattern {pattern!r}: {wrong}")
            if "*" in pattern or pattern.endswith("/"):
                globs.append("/".join(_translated(pattern)))
            else:
                exact.add(pattern)
        self._exact = frozenset(exact)
        self._globs = re.compile("|".join(globs), re.DOTALL) if globs else None

    def allow(self, path: bytes) -> bool:
        """Whether the raw *path* is allowed, however a server reads it."""
        found = readings(path)
        return bool(found) and all(map(self._matches, found))

    def _matches(self, path: str) -> bool:
        if path in self._exact:
            return True
        return self._globs is not None and self._globs.fullmatch(path) is not None


def _translated(pattern: str) -> Iterator[str]:
    """Regular expressions for the segments of *pattern*.

    Within a segment the first place where a part fits is as good as any later one: nothing is
    tried twice, so that no path can make it slow.
    """
    if pattern.endswith("/"):
        pattern += "**"
    for segment in pattern.split("/"):
        if segment == "**":
            yield ".*"
            continue
        first, *parts = segment.split("*")
        text = re.escape(first)
        for part in parts[:-1]:
            text += rf"(?>[^/]*?{re.escape(part)})"
        yield text + (rf"[^/]*{re.escape(parts[-1])}" if parts else "")
