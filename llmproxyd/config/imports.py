"""Other programs' own configuration files, recognised by a key that only they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmproxyd.config import gatewayfile, sillytavern
from llmproxyd.config.translation import Import
from llmproxyd.config.tree import Table
from llmproxyd.providers.base import Provider

_BY_KEY: Mapping[str, Callable[[Table, Mapping[str, Provider]], Import]] = {
    "target_proxy": lambda tree, providers: sillytavern.translate(tree),
    "apis": gatewayfile.translate,
}


def translated(tree: Table, providers: Mapping[str, Provider]) -> Import | None:
    """*tree* as a configuration of ours; ``None`` when it is one already.

    :param providers: by name.
    """
    found = (translate for key, translate in _BY_KEY.items() if key in tree.entries)
    translate = next(found, None)
    return None if translate is None else translate(tree, providers)
