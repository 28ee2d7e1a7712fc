"""The listeners that operators reach a console on: telnet and SSH."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.threads import deferToThreadPool

from llmproxyd.config.operators import SSH, Telnet
from llmproxyd.control.calls import Auditing
from llmproxyd.control.verbs import Control
from llmproxyd.listen import Listening, StartError, listen

Namespace = Callable[[], Mapping[str, object]]
"""What can be named in an interpreter."""


def listen_telnet(
    reactor: Any, settings: Telnet, control: Control, *, audit: Auditing, namespace: Namespace | None
) -> Listening:
    """Open the telnet manhole.

    :param settings: with ``listen``.
    :param audit: takes the records of interpreters that are left.
    :param namespace: ``None`` where there is no interpreter (``operator.python``).
    :raises StartError: it cannot be opened, in one line.
    """
    # Twisted's terminal protocols install a reactor on import, so not before there is one.
    from llmproxyd.operator.login import Checker, PasswordFile
    from llmproxyd.operator.remote import Desk
    from llmproxyd.operator.telnet import TelnetFactory

    assert settings.listen is not None
    if settings.passwords is None:
        raise StartError("operator.telnet.passwords is missing: nobody could log in")
    file = PasswordFile(settings.passwords)
    try:
        lines = file.lines()
    except OSError as error:
        raise StartError(f"operator.telnet.passwords: {settings.passwords}: {error.strerror}") from None
    if not lines:
        raise StartError(
            f"operator.telnet.passwords: {settings.passwords} lets nobody in; "
            f"`llmproxyctl passwd USER >> {settings.passwords}`"
        )
    check = Checker(file, partial(deferToThreadPool, reactor, reactor.getThreadPool()))
    factory = TelnetFactory(Desk(reactor, control, audit, namespace), check)
    listening = _listen("telnet", reactor, settings.listen, factory)
    if listening.beyond_loopback and not settings.insecure:
        for port in listening.ports:
            port.stopListening()
        raise StartError(
            "operator.telnet.listen: other machines can reach it, and telnet sends passwords in the clear; "
            "use operator.ssh, or set operator.telnet.insecure: true"
        )
    return listening


def listen_ssh(
    reactor: Any,
    settings: SSH,
    control: Control,
    *,
    audit: Auditing,
    namespace: Namespace | None,
    state_folder: Path,
) -> Listening:
    """Open the console over SSH.

    :param settings: with ``listen``.
    :param state_folder: where the daemon's own key is, unless ``host_key`` says.
    :raises StartError: it cannot be opened, in one line.
    """
    try:
        from llmproxyd.operator import hostkey, ssh
        from llmproxyd.operator.remote import Desk
    except ImportError as error:
        raise StartError(
            f'operator.ssh.listen: SSH needs a further package ({error.name}): pip install "llmproxyd[ssh]"'
        ) from error
    assert settings.listen is not None
    if settings.authorized_keys is None:
        raise StartError("operator.ssh.authorized_keys is missing: nobody could log in")
    path = settings.host_key or state_folder / hostkey.NAME
    try:
        key = hostkey.host_key(path)
    except hostkey.HostKeyError as error:
        raise StartError(f"operator.ssh.host_key: {error}") from error
    checker = ssh.Keys(settings.authorized_keys, partial(deferToThreadPool, reactor, reactor.getThreadPool()))
    try:
        factory = ssh.Factory(Desk(reactor, control, audit, namespace), key, checker)
    except Exception as error:
        # Twisted's parser of keys raises whatever a broken one makes it raise.
        raise StartError(f"operator.ssh.host_key: {path} is no private key that can be used") from error
    return _listen("ssh", reactor, settings.listen, factory)


def _listen(name: str, reactor: Any, endpoint: str, factory: IProtocolFactory) -> Listening:
    try:
        return listen(reactor, [endpoint], factory)
    except StartError as error:
        raise StartError(f"operator.{name}.listen: {error}") from error
