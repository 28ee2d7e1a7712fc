"""The verbs about the shared HTTP cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from llmproxyd.cache.interface import Cache, Purge
from llmproxyd.cache.key import url_of
from llmproxyd.config.problems import did_you_mean, quoted
from llmproxyd.control.calls import Auditing, Caller, Recorder, verb
from llmproxyd.control.forms import Form, Text, taken
from llmproxyd.control.switchforms import TRUE
from llmproxyd.errors import Refused

URL = (
    'an upstream and a path ("openai /v1/models" or "/to/openai/v1/models"), '
    'or a URL of the upstream\'s own ("https://api.openai.com/v1/models")'
)
_URL = Text(URL, pattern="[!-~]{1,500}(?: /[!-~]{0,8000})?", most=8192)
PURGE = Form(
    {
        "url": _URL,
        "prefix": _URL,
        "project": Text("id or name of a project", "[^\\x00-\\x1f]{1,100}", 100),
        "all": TRUE,
    },
    single=True,
)


class Caches:
    """What is in the cache, and taking it out.

    :param upstreams: base URLs by name.
    :param stats: tells how the cache does; by default what the backend knows.
    :param purge: forgets what is on its way, too; by default the backend's own.
    :param project: finds the id of a project by its id or name, where access is on.
    """

    form = PURGE

    def __init__(
        self,
        cache: Cache,
        *,
        audit: Auditing,
        upstreams: Mapping[str, str],
        project: Callable[[str], Deferred[str]] | None = None,
        stats: Callable[[], Mapping[str, object]] | None = None,
        purge: Callable[[Purge], Deferred[int]] | None = None,
    ) -> None:
        self._purge = purge or cache.purge
        self._stats = stats or cache.stats
        self._recorder = Recorder(audit)
        self._upstreams = upstreams
        self._project = project

    def stats(self) -> dict[str, Any]:
        """What the backend knows of itself, and how often it was of use."""
        return dict(self._stats())

    @verb
    async def purge(self, caller: Caller, given: Mapping[str, object]) -> dict[str, Any]:
        """Forget one URL, all below a prefix, all of a project, or everything."""
        read = taken(PURGE, given)
        ((kind, value),) = read.items()
        what = await self._meant(kind, value)
        target = kind if value is True else f"{kind} {quoted(value)[1:-1]}"
        count = await self._recorder.make(caller, "cache.purge", target, lambda: self._purge(what))
        return {"purged": count}

    async def _meant(self, kind: str, value: str) -> Purge:
        if kind == "all":
            return Purge(everything=True)
        if kind == "project":
            return Purge(project=await self._id_of(value))
        upstream, path = self._split(value)
        if kind == "prefix":
            return Purge(prefix=f"{upstream} {path}".encode())
        return Purge(url=url_of(upstream, path.encode()))

    async def _id_of(self, name: str) -> str:
        if self._project is None:
            return name
        try:
            return await self._project(name)
        except Refused as error:
            # Entries of a project that is gone can still be purged by its id.
            if error.status == 404 and name.startswith("proj_"):
                return name
            raise

    def _split(self, text: str) -> tuple[str, str]:
        """Upstream and path that *text* names.

        :raises Refused: 404, there is no such upstream.
        """
        for name, base in self._upstreams.items():
            below = text.removeprefix(base) if base else text
            if below != text and (not below or below[0] in "/?"):
                return name, below or "/"
        name, space, path = text.removeprefix("/to/").partition(" ")
        if not space:
            name, slash, path = name.partition("/")
            path = slash + path
        if name not in self._upstreams:
            hint = did_you_mean(name, list(self._upstreams))
            known = ", ".join(sorted(self._upstreams))
            raise Refused(
                404, "upstream_not_found", f"No upstream {quoted(name)}{hint} (known: {known}); {URL}"
            )
        return name, path
