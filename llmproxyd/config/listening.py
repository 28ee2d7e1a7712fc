"""Host and port, as other programs are told where to listen, to endpoints."""

from __future__ import annotations

import ipaddress
import re

from llmproxyd.config.problems import Problem, quoted
from llmproxyd.config.tree import Listing, Scalar, Source

HOST = 'an address such as "127.0.0.1", or "0.0.0.0" for all'
PORT = "a port, 0 to 65535"

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")


def listen_on(
    host: Scalar, port: Scalar, names: tuple[str, str], source: Source
) -> tuple[Listing | None, list[Problem]]:
    """The value of ``listen`` for *host* and *port*, and what is wrong with them.

    :param names: of the keys that they stand at, for messages.
    :param source: of the value.
    """
    problems = []
    number = int(port.text) if re.fullmatch("[0-9]{1,5}", port.text) else -1
    if not 0 <= number <= 65535:
        problems.append(Problem(str(port.source), names[1], f"found {quoted(port.text)}; accepted: {PORT}"))
    try:
        addresses = _addresses(host.text)
    except ValueError:
        problems.append(Problem(str(host.source), names[0], f"found {quoted(host.text)}; accepted: {HOST}"))
    if problems:
        return None, problems
    found = [
        Scalar(f"{kind}:{number}:interface={address}", source, plain=False) for kind, address in addresses
    ]
    return Listing(tuple(found), source), []


def _addresses(host: str) -> list[tuple[str, str]]:
    """Type of endpoint and escaped address of each interface that *host* means.

    :raises ValueError: it means none.
    """
    if host == "localhost":
        return [("tcp", "127.0.0.1"), ("tcp6", r"\:\:1")]
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in bare:
        ipaddress.IPv6Address(bare)
        return [("tcp6", bare.replace(":", "\\:"))]
    if not _NAME.fullmatch(bare):
        raise ValueError
    if not re.search("[A-Za-z]", bare):
        ipaddress.IPv4Address(bare)
    return [("tcp", bare)]
