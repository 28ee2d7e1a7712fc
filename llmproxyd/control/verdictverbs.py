"""The verbs on verdicts: what clients did wrong after a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxyd.control.answers import Answer
from llmproxyd.control.calls import Auditing, Caller, Recorder, verb
from llmproxyd.control.means import Watch
from llmproxyd.control.tables import plain
from llmproxyd.control.turn import Turn
from llmproxyd.errors import Refused

NONE = "No verdict: no client is known to have done anything wrong after a failure.\n"


class Verdicts:
    """The same for edges that want data, changes on record first."""

    def __init__(self, watch: Watch, *, audit: Auditing) -> None:
        self._watch = watch
        self._recorder = Recorder(audit)

    def list(self, test: str | None, *, over: bool) -> dict[str, Any]:
        """All verdicts; see :meth:`Watch.verdicts <llmproxyd.control.means.Watch.verdicts>`."""
        return told(self._watch, test, over=over)

    @verb
    async def clear(self, caller: Caller) -> dict[str, Any]:
        """Forget everything."""

        async def forget() -> dict[str, Any]:
            return {"cleared": self._watch.clear()}

        before = {"verdicts": len(self._watch.verdicts())}
        return await self._recorder.make(
            caller, "verdicts.clear", "verdicts", forget, before=before, after={"verdicts": 0}
        )


def verdicts(turn: Turn) -> Answer:
    """``verdicts``."""
    values = turn.values
    data = told(_watch(turn), values.get("test"), over=bool(values.get("over")))
    found = data["verdicts"]
    return Answer("\n".join(map(_shown, found)) if found else NONE, data=data)


async def clear(turn: Turn) -> Answer:
    """``verdicts clear``."""
    watch = _watch(turn)
    before = {"verdicts": len(watch.verdicts())}

    def forget() -> int:
        return watch.clear()

    gone = await turn.change("verdicts.clear", "verdicts", forget, before=before, after={"verdicts": 0})
    return Answer(f"Verdicts forgotten: {gone}\n", data={"cleared": gone})


def told(watch: Watch, test: str | None, *, over: bool) -> dict[str, Any]:
    """All verdicts, and how much was forgotten."""
    found = [dict(one) for one in watch.verdicts(test=test, over=over)]
    return {"verdicts": found, "dropped": dict(watch.dropped())}


def _watch(turn: Turn) -> Watch:
    if turn.means.watch is None:
        raise Refused(404, "verdicts_unavailable", "Clients are not watched here.")
    return turn.means.watch


def _shown(one: Mapping[str, Any]) -> str:
    """One verdict, on a few lines."""
    again = f", {one['seen']} times" if one["seen"] > 1 else ""
    where = f"{plain(one['client'])} at {plain(one['upstream'])} {plain(one['path'])}"
    test = "" if one["test"] is None else f", test {plain(one['test'])}"
    return (
        f"{one['severity']}: {one['name']}{again}\n"
        f"  {plain(one['text'])}\n"
        f"  {where}{test}\n"
        f"  requests: {plain(one['requests'])}\n"
        f"  see {one['docs']}\n"
    )
