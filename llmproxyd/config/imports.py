"""Other programs' own configuration files, recognised by a key that only they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmproxyd.config import sillytavern
from llmproxyd.config.translation import Import
from llmproxyd.config.tree import Table

_BY_KEY: Mapping[str, Callable[[Table], Import]] = {"target_proxy": sillytavern.translate}


def translated(tree: Table) -> Import | None:
    """*tree* as a configuration of ours; ``None`` when it is one already."""
    return next((translate(tree) for key, translate in _BY_KEY.items() if key in tree.entries), None)
