"""Which verb is done by what."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from llmproxyd.control import (
    accessverbs,
    daemonverbs,
    faultverbs,
    limitverbs,
    scenarioverbs,
    verdictverbs,
    watchverbs,
)
from llmproxyd.control.answers import Answer
from llmproxyd.control.turn import Turn
from llmproxyd.language.faults import MODES

Handler = Callable[[Turn], Answer | Coroutine[Any, Any, Answer]]
"""Does it; raises :exc:`LanguageError` or :exc:`Refused` where it cannot be done."""

HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys((one.name for one in MODES), faultverbs.mode),
    "fault list": faultverbs.listing,
    "fault add": faultverbs.add,
    "fault rm": faultverbs.remove,
    "fault clear": faultverbs.clear,
    "limit": limitverbs.add,
    "limit list": limitverbs.listing,
    "limit rm": limitverbs.remove,
    "limit clear": limitverbs.clear,
    "scenario run": scenarioverbs.run,
    "scenario stop": scenarioverbs.stop,
    "scenario status": scenarioverbs.status,
    "scenario export": scenarioverbs.export,
    "status": watchverbs.status,
    "requests": watchverbs.requests,
    "requests tail": watchverbs.tail,
    "explain": watchverbs.explain,
    "connections": watchverbs.connections,
    "verdicts": verdictverbs.verdicts,
    "verdicts clear": verdictverbs.clear,
    "cache stats": watchverbs.cache_stats,
    "cache purge": watchverbs.cache_purge,
    "upstream list": watchverbs.upstreams,
    "upstream drain": watchverbs.drain,
    "upstream enable": watchverbs.enable,
    "breaker show": faultverbs.breakers,
    "breaker trip": faultverbs.trip,
    "breaker reset": faultverbs.reset,
    "test": watchverbs.test,
    "project list": accessverbs.project_list,
    "project show": accessverbs.project_show,
    "project create": accessverbs.project_create,
    "project update": accessverbs.project_update,
    "project activate": accessverbs.project_activate,
    "project deactivate": accessverbs.project_deactivate,
    "project delete": accessverbs.project_delete,
    "project rotate": accessverbs.project_rotate,
    "token list": accessverbs.token_list,
    "token show": accessverbs.token_show,
    "token create": accessverbs.token_create,
    "token update": accessverbs.token_update,
    "token activate": accessverbs.token_activate,
    "token deactivate": accessverbs.token_deactivate,
    "token revoke": accessverbs.token_revoke,
    "token delete": accessverbs.token_delete,
    "token rotate": accessverbs.token_rotate,
    "usage": accessverbs.usage,
    "config show": daemonverbs.config_show,
    "config check": daemonverbs.config_check,
    "config diff": daemonverbs.config_diff,
    "config reload": daemonverbs.config_reload,
    "log level": daemonverbs.log_level,
    "version": daemonverbs.version,
    "shutdown": daemonverbs.shutdown,
    **dict.fromkeys(("help", "?"), daemonverbs.help_),
    "python": daemonverbs.python,
    **dict.fromkeys(("quit", "q"), daemonverbs.quit_),
}
"""By the verb's name in :data:`~llmproxyd.language.table.TABLE`."""
