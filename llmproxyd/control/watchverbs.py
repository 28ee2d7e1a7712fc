"""The verbs that look: status, requests, connections, cache, upstreams; and draining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmproxyd.control.answers import Answer, Stop
from llmproxyd.control.means import Places
from llmproxyd.control.requestrows import heads_of_requests, line_of_request, rows_of_requests
from llmproxyd.control.tables import members, plain, table
from llmproxyd.control.turn import Turn, json_text, of_members
from llmproxyd.errors import Refused
from llmproxyd.faults.language import LanguageError, shown
from llmproxyd.observe.explained import explain_text

REQUESTS = 20
"""Requests that are shown unless told otherwise."""
TAIL = 5
"""The same, where more are awaited."""


def status(turn: Turn) -> Answer:
    """``status``."""
    answer = turn.control.status(colour=turn.colour)
    means = turn.means
    data: dict[str, object] = dict(turn.control.faults())
    if means.status is not None:
        data |= means.status.show()
    if "all" in turn.values:
        return Answer(members(data) + "\n", data=data)
    return Answer(answer.text, data=data)


def requests(turn: Turn) -> Answer:
    """``requests``."""
    rows = turn.journal().recent(turn.values.get("filter", ()), turn.values.get("n", REQUESTS))
    data = {"requests": [dict(row) for row in rows]}
    if not rows:
        return Answer("No such request is remembered.\n", data=data)
    return Answer(rows_of_requests(rows, turn.colour), data=data)


def tail(turn: Turn) -> Answer:
    """``requests tail``."""
    if not turn.console.lasting:
        raise LanguageError("requests tail needs a console that goes on; ask for requests again and again")
    journal, filters = turn.journal(), turn.values.get("filter", ())
    rows = journal.recent(filters, turn.values.get("n", TAIL))
    as_json, colour = turn.json, turn.colour

    def line(row: Mapping[str, Any]) -> str:
        return json_text(row, None) if as_json else line_of_request(row, colour)

    def follow(emit: Callable[[str], None]) -> Stop:
        return journal.follow(filters, lambda row: emit(line(row)))

    heads = "" if as_json else heads_of_requests(colour)
    return Answer(heads + "".join(map(line, rows)), follow=follow)


def explain(turn: Turn) -> Answer:
    """``explain``."""
    found = turn.journal().explain(turn.values["id"])
    if found is None:
        raise Refused(
            404,
            "no_such_request",
            f'No request with the id "{shown(turn.values["id"])}" is remembered; '
            "journal.requests says how many are.",
        )
    return Answer(explain_text(found), data=found)


def connections(turn: Turn) -> Answer:
    """``connections``."""
    if turn.means.connections is None:
        raise Refused(404, "connections_unavailable", "Connections are not known here.")
    found = list(turn.means.connections())
    data = {"connections": [dict(row) for row in found]}
    if not found:
        return Answer("No connection is open.\n", data=data)
    return Answer(_table(turn, found), data=data)


def cache_stats(turn: Turn) -> Answer:
    """``cache stats``."""
    if turn.means.caches is None:
        raise _no_cache()
    return of_members(turn.means.caches.stats())


async def cache_purge(turn: Turn) -> Answer:
    """``cache purge``."""
    if turn.means.caches is None:
        raise _no_cache()
    gone = await turn.means.caches.purge(turn.caller, turn.values)
    return Answer(f"Entries purged: {gone['purged']}\n", data=gone)


async def test(turn: Turn) -> Answer:
    """``test``."""
    if turn.means.probes is None:
        raise Refused(404, "test_unavailable", "Upstreams cannot be tested here.")
    found = await turn.means.probes.test(turn.values["upstream"])
    text = f"{plain(found['upstream'])} {plain(found['verdict'])}\n{members(found)}\n"
    return Answer(text, ok=bool(found["ok"]), data=found)


def upstreams(turn: Turn) -> Answer:
    """``upstream list``."""
    found = list(_places(turn).list())
    return Answer(_table(turn, found), data={"upstreams": [dict(row) for row in found]})


async def drain(turn: Turn) -> Answer:
    """``upstream drain``."""
    return await _switch(turn, "drain", "draining")


async def enable(turn: Turn) -> Answer:
    """``upstream enable``."""
    return await _switch(turn, "enable", "enabled")


async def _switch(turn: Turn, verb: str, state: str) -> Answer:
    places, name = _places(turn), turn.values["name"]

    def switch() -> Answer:
        (places.drain if verb == "drain" else places.enable)(name)
        return upstreams(turn)

    before = next((row.get("state") for row in places.list() if row.get("name") == name), None)
    return await turn.change(
        f"upstream.{verb}",
        shown(name),
        switch,
        check=lambda: turn.control.check_upstream(name),
        before=None if before is None else {"state": before},
        after={"state": state},
    )


def _places(turn: Turn) -> Places:
    places = turn.means.places
    if places is None:
        raise Refused(404, "upstreams_unavailable", "Upstreams cannot be drained here.")
    return places


def _no_cache() -> Refused:
    return Refused(404, "cache_disabled", "The cache is off here; cache.enabled: true switches it on.")


def _table(turn: Turn, rows: Sequence[Mapping[str, Any]]) -> str:
    """All members of *rows*, as columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    numbers = [
        column
        for column, name in enumerate(names)
        if all(isinstance(row.get(name), int | float) and row[name] is not True for row in rows)
    ]
    heads = [name.replace("_", " ").upper() for name in names]
    cells = [[row.get(name) for name in names] for row in rows]
    return table(heads, cells, right=numbers, colour=turn.colour) + "\n"
