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

STARTER = """\
# llmproxyd for a team: clients present tokens of their projects, and no provider's key.
#
#   1. llmproxyd --config {name}
#   2. llmproxyctl project create my-team --credential openai
#   3. llmproxyctl token create --project my-team --expires 90d
#   4. OPENAI_BASE_URL=http://localhost:8888/v1 OPENAI_API_KEY=<the token> your-program
#
# Every key with its default is in etc/llmproxyd.yaml; `llmproxyctl config check {name}` finds mistakes.

# Loopback alone.  For other machines listen on all addresses, and put TLS in front of it:
#   listen: ["tcp:8888"]
listen: ["tcp:8888:interface=127.0.0.1"]

access:
  enabled: true
  # Projects and tokens.  For several hosts: postgresql://user@host/llmproxyd
  store: "sqlite:llmproxyd.db"
  # Credentials are encrypted with a key that is made beside the database; PostgreSQL needs one:
  #secret_key: ${{GATEWAY_SECRET_KEY}}

# Answers that may be stored are shared within a project (RFC 9111).
cache:
  enabled: true

# What absorbs an upstream's failures: without retry and breaker none are.
resilience:
  default:
    retry: {{max_retries: 2}}
    breaker: {{enabled: true}}

# Model and token counts of each request, for `llmproxyctl usage`.
events:
  usage: true

# llmproxyctl finds the Unix socket by itself, as the same user on the same machine.  From elsewhere:
#admin:
#  listen: "tcp:8899:interface=127.0.0.1"
#  token: ${{GATEWAY_ADMIN_TOKEN}}
"""


def init(given: Namespace) -> int:
    """Write a configuration to start with; what is there stays as it is."""
    try:
        descriptor = os.open(given.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        say(f"llmproxyctl: {given.file} is there already; nothing was written")
        return REFUSED
    except OSError as error:
        say(f"llmproxyctl: {given.file}: {error.strerror}")
        return REFUSED
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(STARTER.format(name=given.file.name))
    print(f"Wrote {given.file}. Start with: llmproxyd --config {given.file}")
    return DONE


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
