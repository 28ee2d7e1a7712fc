"""The verbs of ``llmproxyctl`` that need no daemon.

What they need is imported when they are called: the others start faster without.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from getpass import getpass
from typing import TYPE_CHECKING

from llmproxyd.admin.secrets import SecretError
from llmproxyd.admin.verbs import DONE, REFUSED, say

if TYPE_CHECKING:
    from llmproxyd.config.schema import Config


def config_check(given: Namespace) -> int:
    """Report everything that is wrong with a file."""
    config = _loaded(given.file)
    if config is None:
        return REFUSED
    for warning in config.warnings:
        say(f"warning: {warning}")
    print(f"{given.file} is valid.")
    return DONE


def config_import(given: Namespace) -> int:
    """Print a configuration in native form."""
    from llmproxyd.config.dump import dump

    config = _loaded(given.file)
    if config is None:
        return REFUSED
    for warning in config.warnings:
        say(f"warning: {warning}")
    print(dump(config), end="")
    return DONE


def _loaded(file: str) -> Config | None:
    """The configuration; ``None`` where it cannot be used, which is told."""
    from llmproxyd.config.load import ConfigError, load
    from llmproxyd.providers.registry import ProviderError, registry

    try:
        return load(file=file, environ=os.environ, providers=registry())
    except (ConfigError, ProviderError) as error:
        say(str(error))
        return None


def passwd(given: Namespace) -> int:
    """Print a line for a file of passwords."""
    from llmproxyd.control.passwords import SALT, password_line

    if sys.stdin.isatty():
        password = getpass("Password: ")
        if getpass("Again: ") != password:
            say("llmproxyctl: the two differ; nothing was made")
            return REFUSED
    else:
        password = sys.stdin.readline(4096).rstrip("\r\n")
    try:
        print(password_line(given.user, password, os.urandom(SALT)))
    except ValueError as error:
        raise SecretError(str(error)) from None
    return DONE
