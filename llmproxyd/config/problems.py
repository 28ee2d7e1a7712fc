"""What is wrong with a configuration, told all at once, each with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from llmproxyd.redaction import REDACTED

MAX_PROBLEMS = 100
"""So many are reported at most; a file in a wrong format would flood the terminal."""

Path = tuple[str | int, ...]
"""Where a setting stands in the tree: ``("routes", 0, "upstream")``."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_USERINFO = re.compile(r"//[^\s\"]*@|[^\s/:@]+:[^\s/@]+@")
_PARAMETERS = re.compile(r"(://[^?#\s]*[?#]).*", re.DOTALL)
_KEY_SHAPED = re.compile(r"\b(?:sk-|gsk_|xai-|fw_|dapi|AIza|Bearer )[\w.~+/=-]{6,}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    :param source: ``etc/x.yaml:12``, ``environment LLMPROXYD_X`` or ``--port``.
    :param path: the key's path (``timeouts.connect``), empty for a file as a whole.
    :param message: what was found and what is accepted; holds no secret.
    """

    source: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.path, self.message) if part)


class ConfigError(Exception):
    """The configuration cannot be used.

    :param problems: everything that is wrong with it, in the order of the sources.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:MAX_PROBLEMS]]
        if len(self.problems) > MAX_PROBLEMS:
            lines.append(f"… and {len(self.problems) - MAX_PROBLEMS} more")
        return "\n".join(lines)


def path_text(path: Path) -> str:
    """*path* as people write it: ``routes[0].upstream``, odd keys in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = _PLAIN_KEY.fullmatch(part) and len(part) <= 60 and not _KEY_SHAPED.search(part)
            shown = part if plain else quoted(part)
            text += f".{shown}" if text else shown
    return text


def quoted(text: str) -> str:
    """*text* in double quotes: short, on one line, without what looks like a credential."""
    text = _USERINFO.sub(lambda match: f"{'//' * match.group().startswith('//')}{REDACTED}@", text)
    text = _PARAMETERS.sub(rf"\1{REDACTED}", text)
    text = _KEY_SHAPED.sub(REDACTED, text)
    if len(text) > 60:
        text = text[:60] + "…"
    return json.dumps(text, ensure_ascii=not text.isprintable())


def near(word: str, accepted: Sequence[str]) -> str | None:
    """The one of *accepted* that *word* was probably meant to be."""
    spelled = {choice.lower().replace("-", "_"): choice for choice in accepted}
    meant = get_close_matches(word.lower().replace("-", "_")[:80], list(spelled), 1, 0.65)
    return spelled[meant[0]] if meant else None


def did_you_mean(word: str, accepted: Sequence[str]) -> str:
    """``; did you mean "x"?``, or nothing when no choice is near."""
    meant = near(word, accepted)
    return f'; did you mean "{meant}"?' if meant is not None else ""
