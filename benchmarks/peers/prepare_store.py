"""Makes a store with one project, whose one token is the key that the load presents."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import ensureDeferred

from llmproxyd.access.projects import Project, Token
from llmproxyd.redaction import Secret
from llmproxyd.store.sql import store_for


def main(reactor: Any, path: str, token: str) -> Any:
    """Write it and end."""

    async def made() -> None:
        store = store_for(Secret(f"sqlite:{path}"), None, reactor, state_folder=Path(path).parent)
        await store.open()
        keys = {"openai": Secret("sk-upstream-0123456789")}
        await store.create_project(Project(id="proj_load", name="load", credentials=keys))
        digest = hashlib.sha256(token.encode()).digest()
        await store.create_token(Token(id="tok_load", project="proj_load", digest=digest, shown="sk-…"))
        await store.close()

    return ensureDeferred(made())


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
