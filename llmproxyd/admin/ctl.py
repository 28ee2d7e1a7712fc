"""``llmproxyctl``: the admin API from a command line.  It has no reactor."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmproxyd.admin import completion
from llmproxyd.admin.client import Client, Failed, Place, Unreachable
from llmproxyd.admin.parser import parser
from llmproxyd.admin.secrets import SecretError, SecretSource, from_file
from llmproxyd.admin.socket import candidates
from llmproxyd.admin.verbs import REFUSED, UNREACHABLE, USAGE, Desk, UsageError, say
from llmproxyd.config.folders import state_folder

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    try:
        try:
            words = list(sys.argv[1:] if arguments is None else arguments)
            if words[:2] == [completion.ASKS, "--"]:
                for one in completion.answer(parser(), words[2:], os.environ):
                    print(one)
                return 0
            status = _run(parser().parse_args(words))
            # Whoever reads may have left: that is noticed here, and not when Python ends.
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _run(given: Namespace) -> int:
    try:
        if not given.needs_daemon:
            status: int = given.handler(given)
        else:
            place = _place(given, os.environ)
            if place.in_clear:
                say("warning: the token travels unencrypted; use https, or a tunnel")
            status = given.handler(given, _desk(place, given))
    except UsageError as error:
        say(f"llmproxyctl: {error}")
        return USAGE
    except SecretError as error:
        say(f"llmproxyctl: {error}")
        return REFUSED
    except Unreachable as error:
        say(f"llmproxyctl: {error}")
        return UNREACHABLE
    except Failed as error:
        _explain(error)
        return REFUSED
    return status


def _desk(place: Place, given: Namespace) -> Desk:
    return Desk(Client(place), SecretSource(lambda text: say(f"warning: {text}")), given.json)


def _place(given: Namespace, environ: Mapping[str, str]) -> Place:
    """Where the daemon is, and what is presented to it.

    :raises SecretError: the file of the token cannot be read.
    """
    token = (
        from_file(given.token_file) if given.token_file is not None else environ.get(completion.TOKEN) or None
    )
    if given.url is not None:
        return Place(url=given.url, token=token)
    sockets: list[Path] = candidates(environ, state_folder(environ))
    return Place(sockets=[given.socket] if given.socket is not None else sockets, token=token)


def _explain(error: Failed) -> None:
    say(f"llmproxyctl: {error.message} ({error.code})")
    if len(error.problems) > 1:
        for problem in error.problems:
            say(f"  {problem}")
    if error.code == "token_missing":
        say(f"  Present one with --token-file FILE, or in ${completion.TOKEN}.")


if __name__ == "__main__":
    sys.exit(main())
