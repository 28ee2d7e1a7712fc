"""``llmproxyctl wait-ready``: wait until the daemon lets clients in."""

from __future__ import annotations

import http.client
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from urllib.parse import urlsplit

from llmproxyd.admin.client import Client, Failed, Place, Unreachable, reason
from llmproxyd.admin.verbs import UNREACHABLE, Desk, say
from llmproxyd.units import format_duration

EVERY = 0.2
"""Seconds between looks."""
PATIENCE = 2.0
"""Seconds for one look."""
LONGEST = 64 * 1024
"""Bytes of an answer."""

Look = Callable[[], str | None]
"""Why it is not ready, in a line; ``None`` once it is."""


def wait_ready(given: Namespace, desk: Desk) -> int:
    """Wait; the exit status says whether it came.

    :raises Failed: the admin API refuses us, which no waiting mends.
    """
    url = given.public_url
    look = admin_look(desk.client.place) if url is None else lambda: public_look(url)
    began = time.monotonic()
    last = wait(look, given.timeout, _progress if sys.stderr.isatty() else _nothing)
    waited = round(time.monotonic() - began, 3)
    told = {"ready": last is None, "waited": waited, "reason": last}
    if last is None:
        return desk.show(told, f"Ready after {waited:.1f} s.")
    if desk.json:
        desk.show(told, "")
    say(f"llmproxyctl: not ready within {format_duration(given.timeout)}: {last}")
    return UNREACHABLE


def wait(look: Look, timeout: float, progress: Callable[[float, str], None]) -> str | None:
    """Look until it is ready.

    :param timeout: seconds; it is looked once at least.
    :param progress: told of the seconds so far, and the reason; at the end of none.
    :returns: the last reason, ``None`` if it is ready.
    """
    began = time.monotonic()
    try:
        while (why := look()) is not None:
            left = began + timeout - time.monotonic()
            if left <= 0:
                return why
            progress(time.monotonic() - began, why)
            time.sleep(min(EVERY, left))
        return None
    finally:
        progress(0, "")


def admin_look(place: Place) -> Look:
    """By the status that the admin API tells."""
    client = Client(place, PATIENCE)

    def look() -> str | None:
        try:
            status = client.call("GET", "status")
        except Unreachable as error:
            return " ".join(" ".join(str(error).split("\n")[:2]).split())
        except Failed as error:
            if error.status < 500:
                raise
            return f"{error.message} ({error.code})"
        serving = status.get("serving", {})
        return None if serving.get("ready", True) else str(serving.get("reason"))

    return look


def public_look(url: str) -> str | None:
    """By ``/health/ready`` of the listener for clients.

    :param url: its origin.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request("GET", "/health/ready", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        status, data = answer.status, answer.read(LONGEST)
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {reason(error)}"
    finally:
        connection.close()
    try:
        told = json.loads(data)
        state, why = told["status"], told.get("reason")
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{url}: what answers ({status}) is no llmproxyd"
    return None if status == 200 and state == "ready" else f"{url}: {why or state}"


def _progress(seconds: float, why: str) -> None:
    """One line on the terminal that is written over; taken away where there is no reason."""
    line = f"Waiting ({seconds:.0f} s): {why}"[:79] if why else ""
    printable = "".join(char if char.isprintable() else "?" for char in line)
    print(f"\r{printable}\x1b[K", end="", file=sys.stderr, flush=True)


def _nothing(seconds: float, why: str) -> None:
    """No terminal, no progress."""
