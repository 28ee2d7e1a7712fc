"""Verbs of ``llmproxyctl`` that hand a line of the operator's language to the daemon."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from llmproxyd.admin.verbs import DONE, REFUSED, Desk, confirmed
from llmproxyd.control.requestrows import heads_of_requests, line_of_request
from llmproxyd.language.lexer import written

EVERY = 1.0
"""Seconds between looks at the last requests."""
FIRST = 5
"""Requests that are shown at first, unless told otherwise."""
STANDING = ("list", "add", "rm", "clear")
"""Verbs that stand below "fault" in the language."""
LOOK = 1000
"""Requests that are looked at each time: more than that in a second are not all shown."""


def line_of(words: Sequence[str]) -> str:
    """*words* as a line; a single one is a line already."""
    if len(words) == 1:
        return words[0]
    return " ".join(word if _plain(word) else written(word) or word for word in words)


def _plain(word: str) -> bool:
    return bool(word) and not any(char.isspace() or char in "\"'" for char in word)


def run(given: Namespace, desk: Desk) -> int:
    """Do a line."""
    return send(line_of([*given.words, *given.line]), desk)


def fault(given: Namespace, desk: Desk) -> int:
    """Command faults."""
    line = " ".join(given.line) or "status"
    if line.split()[0].lower() in STANDING:
        line = f"fault {line}"
    answer = desk.client.call("POST", "faults", body={"command": line})
    return desk.show(answer, answer["text"].rstrip("\n"))


def verdicts(given: Namespace, desk: Desk) -> int:
    """Show the verdicts, or forget them."""
    words = ["verdicts", *([given.action] if given.action else [])]
    if given.test is not None:
        words += ["--test", given.test]
    return send(line_of([*words, *(["--over"] if given.over else [])]), desk)


def shutdown(given: Namespace, desk: Desk) -> int:
    """Stop the daemon."""
    question = "Stop the daemon, once running requests have ended?"
    if sys.stdin.isatty() and not given.yes and not confirmed(question):
        return REFUSED
    return send("shutdown", desk)


def requests(given: Namespace, desk: Desk) -> int:
    """Show the last requests, and with ``tail`` those that follow."""
    if given.line[:1] != ["tail"]:
        return send(line_of(["requests", *given.line]), desk)
    words = given.line[1:]
    line = line_of(["requests", str(LOOK), *(word for word in words if not word.isdigit())])
    first = next((int(word) for word in words if word.isdigit()), FIRST)
    colour = sys.stdout.isatty()
    if not desk.json:
        print(heads_of_requests(colour), end="", flush=True)
    seen: set[object] = set()
    while True:
        rows = _answer(line, desk)["data"]["requests"]
        news = [row for row in rows if row.get("id") not in seen][-first:]
        for row in news:
            print(json.dumps(row) + "\n" if desk.json else line_of_request(row, colour), end="", flush=True)
        seen = {row.get("id") for row in rows}
        first = LOOK
        time.sleep(EVERY)


def send(line: str, desk: Desk) -> int:
    """Have the daemon do *line*, and show what it came to."""
    answer = _answer(line, desk)
    data = answer["data"]
    desk.show({"text": answer["text"]} if data is None else data, answer["text"].rstrip("\n"))
    return DONE if answer["ok"] else REFUSED


def _answer(line: str, desk: Desk) -> dict[str, Any]:
    answer: dict[str, Any] = desk.client.call("POST", "faults", body={"command": line})
    return answer
