"""The verbs about projects, and about what was used under them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

from twisted.internet.defer import Deferred

from llmproxyd.access.projects import Project
from llmproxyd.control.accessforms import AccessForms, allow_of, limits_of, shown_project
from llmproxyd.control.calls import Auditing, Caller, Recorder, verb
from llmproxyd.control.forms import taken
from llmproxyd.control.ledger import MOST, PAGE, DoorChanged, Ledger, page
from llmproxyd.control.moments import Moment, day
from llmproxyd.control.tokens import Tokens
from llmproxyd.errors import Refused
from llmproxyd.redaction import Secret
from llmproxyd.store.interface import Store

Told = dict[str, Any]
"""What a verb comes to, as JSON takes it."""

MONTH = Moment(distance=30 * 86400.0)


class Projects:
    """Projects, and their :attr:`tokens`.

    Each verb takes values as JSON has them, refuses what cannot be meant
    (:exc:`~llmproxyd.control.forms.Invalid`, with all that is wrong) and is a Deferred of plain
    values.  A project is named by its id or its name.  Credentials never come out again.

    :param door_changed: told of every project and token that changed, by id.
    :param audit: takes each change before it is made; where it fails nothing changes.
    :param wall: seconds since the epoch.
    :param random_bytes: so many, fit for secrets.
    :param upstreams: those that a credential can be for, by name.
    :ivar tokens: the verbs about tokens.
    """

    def __init__(
        self,
        store: Store,
        *,
        door_changed: DoorChanged,
        audit: Auditing,
        wall: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        upstreams: Mapping[str, object],
    ) -> None:
        self.forms = AccessForms(upstreams)
        self._ledger = Ledger(store, Recorder(audit), door_changed, wall, random_bytes)
        self.tokens = Tokens(self._ledger, self.forms)

    @verb
    async def create(self, caller: Caller, given: Mapping[str, object]) -> Told:
        """Make a project."""
        read = taken(self.forms.project, given)
        now = self._ledger.wall()
        project = Project(
            id=read.get("id") or self._ledger.new_id("proj_"),
            name=read["name"],
            active=read.get("active", True),
            credentials=MappingProxyType(dict(read.get("credentials", {}))),
            allow=allow_of(read.get("allow", {})),
            limits=limits_of(read.get("limits", {})),
            created=now,
            updated=now,
        )
        await self._ledger.change(
            caller,
            "project.create",
            project.id,
            lambda: self._ledger.store.create_project(project),
            projects=(project.id,),
            after=_recorded(project),
        )
        return shown_project(project)

    @verb
    async def list(self, limit: int = PAGE, after: str | None = None) -> Told:
        """Projects by name, *limit* of them after the one with the id *after*."""
        known = await self._ledger.store.projects()
        found, more = page(known, lambda one: one.id, limit, after)
        return {"projects": [shown_project(one) for one in found], "next": more}

    @verb
    async def id_of(self, name: str) -> str:
        """The id of the project of this id or name."""
        return (await self._ledger.project(name)).id

    @verb
    async def show(self, name: str) -> Told:
        """One project."""
        return shown_project(await self._ledger.project(name))

    @verb
    async def update(self, caller: Caller, name: str, given: Mapping[str, object]) -> Told:
        """Change what is given and keep the rest; a credential that is null is taken away."""
        read = taken(self.forms.project_change, given)
        action = "project.update"
        if list(read) == ["active"]:
            action = "project.activate" if read["active"] else "project.deactivate"

        def changed(project: Project) -> Project:
            keys = {**project.credentials, **read.get("credentials", {})}
            return replace(
                project,
                name=read.get("name", project.name),
                active=read.get("active", project.active),
                credentials=MappingProxyType(
                    {key: value for key, value in keys.items() if value is not None}
                ),
                allow=allow_of(read.get("allow", {}), project.allow),
                limits=limits_of(read.get("limits", {}), project.limits),
            )

        return await self._change(caller, action, name, changed)

    def activate(self, caller: Caller, name: str) -> Deferred[Told]:
        """Let its tokens be used again."""
        return self.update(caller, name, {"active": True})

    def deactivate(self, caller: Caller, name: str) -> Deferred[Told]:
        """Refuse all its tokens."""
        return self.update(caller, name, {"active": False})

    @verb
    async def rotate(self, caller: Caller, name: str, given: Mapping[str, object]) -> Told:
        """Replace credentials that are there already."""
        keys: Mapping[str, Secret] = taken(self.forms.credentials, given)["credentials"]

        def changed(project: Project) -> Project:
            for upstream in keys:
                if upstream not in project.credentials:
                    raise Refused(
                        409,
                        "no_such_credential",
                        f"The project has no credential for {upstream} that could be replaced; "
                        "project update adds one.",
                    )
            return replace(project, credentials=MappingProxyType({**project.credentials, **keys}))

        return await self._change(caller, "project.rotate", name, changed)

    @verb
    async def delete(self, caller: Caller, name: str) -> Told:
        """Take a project away, with its tokens and credentials; what was used under it stays."""
        async with self._ledger.lock:
            project = await self._ledger.project(name)
            tokens = [one.id for one in await self._ledger.store.tokens(project.id)]
            await self._ledger.change(
                caller,
                "project.delete",
                project.id,
                lambda: self._ledger.store.delete_project(project.id),
                projects=(project.id,),
                tokens=tokens,
                before={**_recorded(project), "tokens": tokens[:MOST]},
            )
        return {"deleted": project.id, "tokens": len(tokens)}

    @verb
    async def usage(
        self, by: Literal["project", "token", "model"] = "project", since: Moment = MONTH, limit: int = PAGE
    ) -> Told:
        """What was used since then, the most first."""
        store = self._ledger.store
        first = day(max(0.0, since.back(self._ledger.wall())))
        rows = await store.usage(by, first)
        labels: dict[str, str] = {}
        if by == "project":
            labels = {one.id: one.name for one in await store.projects()}
        elif by == "token":
            labels = {one.id: one.name or one.shown for one in await store.tokens()}
        found = [
            {
                "name": row.name,
                "label": labels.get(row.name, ""),
                "requests": row.requests,
                "input": row.input,
                "output": row.output,
                "cost": row.cost,
            }
            for row in rows[:limit]
        ]
        return {"by": by, "since": first, "usage": found, "left_out": len(rows) - len(found)}

    @verb
    async def rotate_key(self, caller: Caller, given: Mapping[str, object]) -> Told:
        """Encrypt all credentials under another key (``access.secret_key`` must be changed too)."""
        new: Secret = taken(self.forms.key, given)["secret_key"]
        count = await self._ledger.change(
            caller, "key.rotate", "access.secret_key", lambda: self._ledger.store.rotate_key(new)
        )
        return {"credentials": count}

    async def _change(
        self, caller: Caller, action: str, name: str, changed: Callable[[Project], Project]
    ) -> Told:
        async def change() -> Told:
            project = await self._ledger.project(name)
            after = changed(project)
            if after == project:
                return shown_project(project)
            after = replace(after, updated=self._ledger.wall())
            old, new = _difference(project, after)
            there = await self._ledger.change(
                caller,
                action,
                project.id,
                lambda: self._ledger.store.update_project(after, project),
                projects=(project.id,),
                before=old,
                after=new,
            )
            if not there:
                raise Refused(404, "project_not_found", "The project has just been deleted.")
            return shown_project(after)

        async with self._ledger.lock:
            return await self._ledger.insist(change)


def _recorded(project: Project) -> Told:
    """*project* for the audit log."""
    told = shown_project(project)
    # Under another name: whatever is called credentials is redacted there as a whole.
    kept = {name: told[name] for name in ("name", "active", "allow", "limits")}
    return {**kept, "upstreams": told["credentials"]}


def _difference(before: Project, after: Project) -> tuple[Told, Told]:
    """The members that change, as they were and as they will be."""
    old, new = _recorded(before), _recorded(after)
    # That a key is another one shows nowhere else.
    for upstream, key in after.credentials.items():
        if before.credentials.get(upstream, key) != key:
            new["upstreams"][upstream] = "[replaced]" if key.reveal() else new["upstreams"][upstream]
    names = [name for name in old if old[name] != new[name]]
    return {name: old[name] for name in names}, {name: new[name] for name in names}
