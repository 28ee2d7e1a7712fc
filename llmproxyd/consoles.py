"""Where operators find a console: at standard input, over telnet, over SSH."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.threads import deferToThreadPool

from llmproxyd.assembly import Assembly
from llmproxyd.config.operators import SSH, Operator, Telnet
from llmproxyd.control.calls import Auditing
from llmproxyd.control.verbs import Control
from llmproxyd.listen import Listening, StartError, listen
from llmproxyd.observe.output import Output

Namespace = Callable[[], Mapping[str, object]]
"""What can be named in an interpreter."""


class AtStdin(NamedTuple):
    """Who is at standard input.

    :param console: ``None`` where nobody is.
    :param terminal: it is a terminal whose foreground we have.
    """

    console: Any
    terminal: bool


NOBODY = AtStdin(None, terminal=False)
"""No console there."""


def start_at_stdin(
    reactor: Any,
    settings: Operator,
    control: Control,
    output: Output,
    *,
    say: Callable[[str], None],
    quit: Callable[[], None],
) -> AtStdin:
    """Start the console at standard input, if somebody is there and may command.

    :param say: tells whoever has no terminal for line editing.
    :param quit: stops the daemon when a terminal's input ends.
    """
    if settings.stdin is False:
        return NOBODY
    from llmproxyd.operator import stdin

    console: Any = None
    kind = stdin.kind_of_stdin()
    if kind == "terminal" and output.terminal:
        from llmproxyd.operator import terminal

        console = terminal.TerminalConsole(reactor, control, output, quit)
    elif kind == "terminal":
        console = stdin.LineConsole(reactor, control, say, quit)
    elif kind == "pipe" or (kind == "other" and settings.stdin is True):
        console = stdin.LineConsole(reactor, control, say)
    if console is not None:
        reactor.callWhenRunning(console.start)
    return AtStdin(console, terminal=kind == "terminal")


def listeners(works: Assembly, control: Control, namespace: Namespace) -> Iterator[Listening]:
    """Open the listeners that the configuration asks for.

    :param namespace: for interpreters, where they are allowed (``operator.python``).
    :raises StartError: one of them cannot be opened, in one line.
    """
    operator, audit = works.config.operator, works.gateway.audit.record
    allowed = namespace if operator.python else None
    if operator.telnet.listen is not None:
        yield listen_telnet(works.reactor, operator.telnet, control, audit=audit, namespace=allowed)
    if operator.ssh.listen is not None:
        folder = works.config.state_folder
        yield listen_ssh(
            works.reactor, operator.ssh, control, audit=audit, namespace=allowed, state_folder=folder
        )


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
