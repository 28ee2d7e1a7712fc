"""What the verbs about projects and tokens share: the store, the record, and who is told."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from twisted.internet.defer import DeferredLock

from llmproxyd.access import tokens as form
from llmproxyd.access.projects import Project, Token
from llmproxyd.config.problems import near, quoted
from llmproxyd.control.calls import Caller, Recorder
from llmproxyd.errors import Refused
from llmproxyd.store.interface import Outdated, Store

T = TypeVar("T")

PAGE = 100
"""Items of a list that are given at once, unless asked for otherwise."""
MOST = 1000
"""Items of a list that are given at once at most."""

TRIES = 5
"""Times that a change is made anew because another host has changed the same thing meanwhile."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class DoorChanged(Protocol):
    """Forgets what is remembered of projects and tokens, by id."""

    def __call__(self, projects: Sequence[str], tokens: Sequence[str]) -> None: ...


class Ledger:
    """Projects and tokens, found by whatever names them and changed one change at a time.

    :param wall: seconds since the epoch.
    :param random_bytes: so many, fit for secrets (:func:`os.urandom`).
    """

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        door_changed: DoorChanged,
        wall: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.store = store
        self.wall = wall
        self._recorder = recorder
        self._door_changed = door_changed
        self._random_bytes = random_bytes
        # A change reads first; two at once on this host would lose one of them.  What another host
        # changes in between the store tells.
        self.lock = DeferredLock()

    def new_id(self, prefix: str) -> str:
        """*prefix* and 16 characters of base32."""
        return form.new_id(prefix, self._random_bytes(form.ID_ENTROPY))

    def new_secret(self) -> str:
        """What a client presents, told once."""
        return form.new_token(self._random_bytes(form.ENTROPY))

    async def change(
        self,
        caller: Caller,
        action: str,
        target: str,
        do: Callable[[], Awaitable[T]],
        *,
        projects: Sequence[str] = (),
        tokens: Sequence[str] = (),
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
    ) -> T:
        """Record, *do*, and have the door forget *projects* and *tokens*.

        :raises Refused: see :meth:`Recorder.make`.
        """

        async def done() -> T:
            try:
                return await do()
            finally:
                # A store that failed may have made the change all the same.
                self._door_changed(projects, tokens)

        return await self._recorder.make(caller, action, target, done, before=before, after=after)

    async def insist(self, make: Callable[[], Awaitable[T]]) -> T:
        """*make* a change of what it reads itself, again where that was outdated."""
        for _ in range(TRIES - 1):
            try:
                return await make()
            except Outdated:
                continue
        return await make()

    async def project(self, name: str) -> Project:
        """The project of this id or name.

        :raises Refused: 404.
        """
        if _plain(name):
            if (by_id := await self.store.project(name)) is not None:
                return by_id
            known = await self.store.projects()
            for one in known:
                if one.name == name:
                    return one
            meant = near(name, [one.name for one in known])
        else:
            meant = None
        hint = f'; did you mean "{meant}"?' if meant else ""
        raise Refused(404, "project_not_found", f"There is no project {quoted(name)}{hint}")

    async def token(self, name: str) -> Token:
        """The token that is *name* itself, has its digest (``sha256:…``), this id or this name.

        :raises Refused: 404; 409 where several have the name.
        """
        found: list[Token] = []
        if form.looks_like(name) or _DIGEST.fullmatch(name):
            one = await self.store.token_by_digest(_digest(name))
            found = [] if one is None else [one]
        elif _plain(name):
            one = await self.store.token(name)
            found = [one] if one else [each for each in await self.store.tokens() if each.name == name]
        if len(found) > 1:
            ids = ", ".join(one.id for one in found[:5])
            raise Refused(409, "ambiguous_name", f"{len(found)} tokens have this name; use an id: {ids}")
        if not found:
            shown = "the one that was given" if name.startswith(("sk-", "sha256:")) else quoted(name)
            raise Refused(404, "no_such_token", f"There is no such token: {shown}")
        return found[0]


def _digest(name: str) -> bytes:
    match = _DIGEST.fullmatch(name)
    return form.digest_of(name) if match is None else bytes.fromhex(match[1])


def _plain(name: str) -> bool:
    return 0 < len(name) <= 200 and name.isprintable()


def page(
    items: Sequence[T], key: Callable[[T], str], limit: int, after: str | None
) -> tuple[list[T], str | None]:
    """So many of *items* after the one with *key*, and the key to go on with.

    :raises Refused: 400, where nothing has that key (any more).
    """
    start = 0
    if after is not None:
        keys = [key(one) for one in items]
        if after not in keys:
            raise Refused(400, "unknown_cursor", "after: there is no item of this id (any more); start over.")
        start = keys.index(after) + 1
    found = list(items[start : start + limit])
    more = start + limit < len(items)
    return found, key(found[-1]) if found and more else None
