"""The verbs about tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from llmproxyd.access.projects import Scope, Token
from llmproxyd.access.tokens import digest_of
from llmproxyd.access.tokens import shown as shown_start
from llmproxyd.control.accessforms import AccessForms, limits_of, shown_token
from llmproxyd.control.calls import Caller, verb
from llmproxyd.control.forms import taken
from llmproxyd.control.ledger import PAGE, Ledger, page
from llmproxyd.errors import Refused

Told = dict[str, Any]

_RECORDED = ("project", "shown", "name", "active", "expires", "max_requests", "limits", "scopes")


class Tokens:
    """Tokens of projects, by id, by name where one alone has it, or by the token itself.

    The token itself (``token``) is told once, by the verb that makes it.
    """

    def __init__(self, ledger: Ledger, forms: AccessForms) -> None:
        self._ledger = ledger
        self._forms = forms

    @verb
    async def create(self, caller: Caller, given: Mapping[str, object]) -> Told:
        """Make a token."""
        read = taken(self._forms.token, given)
        async with self._ledger.lock:
            project = await self._ledger.project(read["project"])
            now = self._ledger.wall()
            secret = self._ledger.new_secret()
            blank = Token(
                id=self._ledger.new_id("tok_"),
                project=project.id,
                digest=digest_of(secret),
                shown=shown_start(secret),
                created=now,
            )
            token = _changed(blank, read, now)
            await self._store_new(caller, "token.create", token)
        return {**self._shown(token), "token": secret}

    @verb
    async def list(self, project: str | None = None, limit: int = PAGE, after: str | None = None) -> Told:
        """Tokens, of one project or of all, the newest first."""
        of = None if project is None else (await self._ledger.project(project)).id
        known = await self._ledger.store.tokens(of)
        found, more = page(known, lambda one: one.id, limit, after)
        return {"tokens": [self._shown(one) for one in found], "next": more}

    @verb
    async def show(self, name: str) -> Told:
        """One token."""
        return self._shown(await self._ledger.token(name))

    @verb
    async def update(self, caller: Caller, name: str, given: Mapping[str, object]) -> Told:
        """Change what is given and keep the rest."""
        read = taken(self._forms.token_change, given)
        action = "token.update"
        if list(read) == ["active"]:
            action = "token.activate" if read["active"] else "token.deactivate"
        async with self._ledger.lock:
            after = await self._change(
                caller, action, name, lambda token: _changed(token, read, self._ledger.wall())
            )
        return self._shown(after)

    def activate(self, caller: Caller, name: str) -> Deferred[Told]:
        """Let it be used again."""
        return self.update(caller, name, {"active": True})

    def deactivate(self, caller: Caller, name: str) -> Deferred[Told]:
        """Refuse it."""
        return self.update(caller, name, {"active": False})

    @verb
    async def revoke(self, caller: Caller, name: str) -> Told:
        """Refuse it: it is inactive and expired, until somebody changes both, and stays on record."""
        now = self._ledger.wall()
        async with self._ledger.lock:
            # Said twice it is on record twice: whoever revokes must see that it is done.
            after = await self._change(
                caller, "token.revoke", name, lambda token: replace(_ending(token, now), active=False)
            )
        return self._shown(after)

    @verb
    async def delete(self, caller: Caller, name: str) -> Told:
        """Take it away; what was used with it stays."""
        async with self._ledger.lock:
            token = await self._ledger.token(name)
            await self._ledger.change(
                caller,
                "token.delete",
                token.id,
                lambda: self._ledger.store.delete_token(token.id),
                tokens=(token.id,),
                before=self._recorded(token),
            )
        return {"deleted": token.id}

    @verb
    async def rotate(self, caller: Caller, name: str, given: Mapping[str, object]) -> Told:
        """Give it a new secret.

        Without ``grace`` the old one stops at once and the token keeps its id.  With it the new
        secret is a token of its own, which takes what is left of ``max_requests``, and the old one
        expires after the grace.
        """
        grace: float = taken(self._forms.token_rotation, given).get("grace", 0.0)
        secret = self._ledger.new_secret()

        def renewed(token: Token) -> Token:
            if not token.active:
                raise Refused(
                    409, "token_inactive", "The token is not active; activate it, or create another."
                )
            return replace(token, digest=digest_of(secret), shown=shown_start(secret))

        async with self._ledger.lock:
            if not grace:
                new = await self._change(caller, "token.rotate", name, renewed)
                return {**self._shown(new), "token": secret, "replaces": new.id}
            token = await self._ledger.token(name)
            new = renewed(token)
            now = self._ledger.wall()
            left = None if token.max_requests is None else max(1, token.max_requests - token.requests)
            new = replace(
                new,
                id=self._ledger.new_id("tok_"),
                max_requests=left,
                created=now,
                last_used=None,
                requests=0,
                tokens=0,
            )
            await self._store_new(caller, "token.rotate", new)
            await self._change(caller, "token.rotate", token.id, lambda old: _ending(old, now + grace))
        return {**self._shown(new), "token": secret, "replaces": token.id}

    async def _store_new(self, caller: Caller, action: str, token: Token) -> None:
        await self._ledger.change(
            caller,
            action,
            token.id,
            lambda: self._ledger.store.create_token(token),
            tokens=(token.id,),
            after=self._recorded(token),
        )

    async def _change(
        self, caller: Caller, action: str, name: str, changed: Callable[[Token], Token]
    ) -> Token:
        async def change() -> Token:
            token = await self._ledger.token(name)
            after = changed(token)
            await self._replace(caller, action, token, after)
            return after

        return await self._ledger.insist(change)

    async def _replace(self, caller: Caller, action: str, token: Token, after: Token) -> None:
        if after == token and action != "token.revoke":
            return
        old, new = self._recorded(token), self._recorded(after)
        names = [name for name in old if old[name] != new[name]]
        there = await self._ledger.change(
            caller,
            action,
            token.id,
            lambda: self._ledger.store.update_token(after, token),
            tokens=(token.id,),
            before={name: old[name] for name in names},
            after={name: new[name] for name in names},
        )
        if not there:
            raise Refused(404, "no_such_token", "The token has just been deleted.")

    def _shown(self, token: Token) -> Told:
        return shown_token(token, self._ledger.wall())

    def _recorded(self, token: Token) -> Told:
        told = self._shown(token)
        return {name: told[name] for name in _RECORDED}


def _ending(token: Token, at: float) -> Token:
    """*token*, which expires *at* that moment at the latest."""
    return replace(token, expires_at=at if token.expires_at is None else min(at, token.expires_at))


def _changed(token: Token, read: Mapping[str, Any], wall: float) -> Token:
    """*token* with what was given in place of its own."""
    expires = token.expires_at
    if "expires" in read:
        expires = None if read["expires"] is None else read["expires"].ahead(wall)
    return replace(
        token,
        name=read.get("name", token.name),
        active=read.get("active", token.active),
        expires_at=expires,
        max_requests=read.get("max_requests", token.max_requests),
        limits=limits_of(read.get("limits", {}), token.limits),
        scopes=frozenset(map(Scope, read["scopes"])) if "scopes" in read else token.scopes,
    )
