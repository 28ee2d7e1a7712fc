"""The keys under ``operator``: where commands come from, and who may give them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from llmproxyd.config import texts
from llmproxyd.config.endpoints import place
from llmproxyd.config.kinds import Endpoint, ReadableFile
from llmproxyd.config.markers import FILLED_IN, check
from llmproxyd.config.secret import OTHERS, mode

HostKeyFile = Annotated[Path, check(texts.KEPT_FILE, texts.kept_file)]

_SOMEWHERE = re.compile("tcp6?|ssl|tls")


@dataclass(frozen=True, slots=True)
class Telnet:
    """The telnet manhole.

    :param listen: where it listens; ``None`` for nowhere.
    :param passwords: a file with a line of ``llmproxyctl passwd`` for each operator.
    :param insecure: passwords and commands may cross a network in the clear.
    """

    listen: Endpoint | None = None
    passwords: ReadableFile | None = None
    insecure: bool = False

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if self.listen is None:
            return
        if self.passwords is None:
            yield (
                "passwords",
                "missing; nobody could log in at operator.telnet.listen "
                "(`llmproxyctl passwd USER >> FILE` writes one)",
            )
        if not self.insecure and not _stays_here(self.listen):
            yield (
                "listen",
                f'found "{self.listen}", which other machines can reach, and telnet sends passwords in the '
                "clear; accepted: an address of this machine alone (interface=127.0.0.1), "
                "operator.ssh instead, or operator.telnet.insecure: true",
            )


@dataclass(frozen=True, slots=True)
class SSH:
    """The same console over SSH.

    :param listen: where it listens; ``None`` for nowhere.
    :param authorized_keys: the public keys that are let in, one a line as OpenSSH writes them.
    :param host_key: this daemon's own, made where it is missing; ``None`` for one in the state folder.
    """

    listen: Endpoint | None = None
    authorized_keys: ReadableFile | None = None
    host_key: HostKeyFile | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if self.listen is not None and self.authorized_keys is None:
            yield (
                "authorized_keys",
                "missing; nobody could log in at operator.ssh.listen "
                "(`cat ~/.ssh/id_ed25519.pub >> FILE` makes one)",
            )


@dataclass(frozen=True, slots=True)
class Operator:
    """Where commands come from.

    :param stdin: ``auto`` reads a terminal whose foreground we have, and a pipe.
    :param faults: whether faults can be commanded; by default not where access is on, so that
        nobody breaks customers by a stray ``c``.
    :param python: operators may run Python within the daemon (over SSH, and telnet on loopback).
    """

    stdin: Literal["auto"] | bool = "auto"
    faults: Annotated[bool, FILLED_IN] = True
    telnet: Telnet = Telnet()
    ssh: SSH = SSH()
    python: bool = False


def warnings(operator: Operator) -> list[str]:
    """What an operator should know who configured this, one sentence each."""
    found = []
    file = operator.telnet.passwords
    if operator.telnet.listen is not None and file is not None and mode(file) & OTHERS:
        found.append(f"operator.telnet.passwords: others can read {file}; chmod o= {file}")
    keys = operator.ssh.authorized_keys
    if operator.ssh.listen is not None and keys is not None and mode(keys) & 0o022:
        found.append(f"operator.ssh.authorized_keys: others can write to {keys}; chmod go-w {keys}")
    if operator.python:
        consoles = (operator.telnet.listen, operator.ssh.listen)
        if any(one is not None for one in consoles):
            found.append("operator.python: operators can run any code as this daemon's user")
        else:
            found.append("operator.python: not used: neither operator.telnet nor operator.ssh listens")
    return found


def _stays_here(endpoint: str) -> bool:
    """Whether only this machine can connect, as far as the text of *endpoint* tells.

    What systemd hands over is known when it is opened, and judged then.
    """
    here = place(endpoint)
    if here.family in ("unix", "systemd"):
        return True
    if not _SOMEWHERE.fullmatch(here.family):
        return False
    if here.interface == "localhost":
        return True
    try:
        return ip_address(here.interface).is_loopback
    except ValueError:
        return False
