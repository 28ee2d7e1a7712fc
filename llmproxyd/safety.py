"""What ends the start because nobody can have meant it, and what is warned of."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from llmproxyd.config.schema import Config
from llmproxyd.listen import Listening, StartError
from llmproxyd.pipeline.guard import is_local_name
from llmproxyd.pipeline.policy import Upstream


def checked(listening: Listening, upstreams: Mapping[str, Upstream], config: Config) -> list[str]:
    """What to warn of where *upstreams* are reached through the open ports of *listening*.

    :raises StartError: nobody can have meant it.
    """
    refuse_loops(listening, upstreams)
    return exposure(
        listening,
        upstreams,
        meant=config.server.open,
        imported=config.imported,
        guarded=config.access.enabled,
    )


def exposure(
    listening: Listening,
    upstreams: Mapping[str, Upstream],
    *,
    meant: bool,
    imported: bool = False,
    guarded: bool = False,
) -> list[str]:
    """What to warn of when other machines can connect.

    :param meant: ``server.open``.
    :param imported: the configuration is another program's, which never asked; a warning must do.
    :param guarded: ``access.enabled``: nobody comes in without a token, and no stored key is used.
    :raises StartError: a stored key would be there for anyone on the network to spend.
    """
    if guarded or not listening.beyond_loopback:
        return []
    keys = sorted(name for name, one in upstreams.items() if one.keyed)
    if keys and not meant and not imported:
        raise StartError(
            f"this configuration stores a key (upstreams.{keys[0]}) and listens beyond "
            "loopback, so anyone on the network could spend it; listen on 127.0.0.1, or set "
            "server.open: true if that is meant"
        )
    what = "spend your key" if keys else "use this proxy"
    return [f"anyone on your network can {what}: it listens beyond loopback"]


def refuse_loops(listening: Listening, upstreams: Mapping[str, Upstream]) -> None:
    """Refuse a base URL that is one of our own ports: it would forward to itself for ever.

    :raises StartError: there is one.
    """
    for name, upstream in upstreams.items():
        parts = urlsplit(upstream.base_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if any(port == number and _same(parts.hostname or "", host) for host, number in listening.addresses):
            raise StartError(
                f"upstreams.{name}.base_url {upstream.base_url} is this proxy itself; requests would "
                "go round in circles (is a *_HOST or *_BASE_URL variable set here?)"
            )


def _same(host: str, address: str) -> bool:
    """Whether *host* leads to the port that is open on *address*."""
    if host == address:
        return True
    return is_local_name(host) and (address in ("0.0.0.0", "::") or is_local_name(address))
