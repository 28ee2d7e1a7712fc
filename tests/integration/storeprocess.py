"""Another process on the same store: ``storeprocess.py COMMAND URL FOLDER KEY``.

``open``   open the store and say how that went
``write``  make projects, each with a token, and tell of each when it is there
``admit``  let a token in, a hundred times a second, and tell how often
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmproxyd.access.projects import Project, Token
from llmproxyd.access.tokens import digest_of
from llmproxyd.redaction import Secret
from llmproxyd.store.doorkeeper import Doorkeeper
from llmproxyd.store.sql import SQLStore, store_for

reactor: Any = _reactor
LONGEST = 30.0


def tell(*words: object) -> None:
    print(*words, flush=True)


async def write(store: SQLStore) -> None:
    number = 0
    while True:
        id = f"{number:05}"
        await store.create_project(Project(id=id, name=id, credentials={"openai": Secret(id)}))
        await store.create_token(Token(id=id, project=id, digest=digest_of(id), shown=id))
        tell(id)
        number += 1


async def admit(store: SQLStore) -> None:
    await store.create_project(Project(id="p", name="p"))
    await store.create_token(Token(id="t", project="p", digest=digest_of("sk-t"), shown="sk-t"))
    door = Doorkeeper(store, reactor, time.time)
    door.start()
    number = 0
    while True:
        found = door.admit("sk-t")
        if isinstance(found, Deferred):
            await found
        number += 1
        tell(number)
        await deferLater(reactor, 0.01)


async def run(command: str, url: str, folder: str, key: str) -> None:
    store = store_for(Secret(url), Secret(key) if key else None, reactor, state_folder=Path(folder))
    try:
        await store.open()
        tell("opened")
        if command != "open":
            await {"write": write, "admit": admit}[command](store)
        await store.close()
    except Exception as error:
        tell(type(error).__name__, error)


def main() -> None:
    reactor.callLater(LONGEST, reactor.stop)
    reactor.callWhenRunning(lambda: ensureDeferred(run(*sys.argv[1:])).addBoth(lambda _: reactor.stop()))
    reactor.run()


if __name__ == "__main__":
    main()
