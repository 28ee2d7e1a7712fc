"""How verbs are added to the command line of ``llmproxyctl``, and what their options take."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path

from llmproxyd.admin.client import checked_url
from llmproxyd.units import parse_duration

STATUSES = "exit status: 0 done, 1 refused or failed, 2 usage, 3 no daemon reachable"

Handler = Callable[..., int]


class Tree:
    """Adds verbs to a parser, each with the common options."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._verbs = parser.add_subparsers(metavar="VERB", required=True, title="verbs")

    @property
    def words(self) -> Collection[str]:
        """The first words of all verbs so far."""
        return self._verbs.choices

    def verb(
        self,
        name: str,
        handler: Handler,
        about: str,
        *examples: str,
        needs_daemon: bool = True,
        own_url: bool = False,
    ) -> argparse.ArgumentParser:
        """A verb that *handler* does.

        :param own_url: its ``--url`` is another one; that of the daemon stands before the verb.
        """
        lines = "\n".join(f"  llmproxyctl {one}" for one in examples)
        parser = self._verbs.add_parser(
            name,
            help=about.replace("%", "%%"),
            description=about[:1].upper() + about[1:] + ".",
            epilog=f"examples:\n{lines}\n\n{STATUSES}" if examples else STATUSES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[common(argparse.SUPPRESS, with_url=not own_url)] if needs_daemon else [],
            allow_abbrev=False,
        )
        parser.set_defaults(handler=handler, needs_daemon=needs_daemon)
        return parser

    def group(self, name: str, about: str) -> Tree:
        """A word that verbs stand below."""
        parser = self._verbs.add_parser(
            name, help=about, description=about[:1].upper() + about[1:] + ".", allow_abbrev=False
        )
        return Tree(parser)


def common(default: str | None, *, with_url: bool = True) -> argparse.ArgumentParser:
    """The options that stand before the verb or after it.

    :param default: where they stand after it, ``SUPPRESS``: what stood before it holds.
    :param with_url: whether ``--url`` is among them.
    """
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    where = common.add_mutually_exclusive_group()
    where.add_argument("--socket", type=Path, metavar="PATH", default=default, help="the admin socket")
    if with_url:
        where.add_argument(
            "--url", type=url, metavar="URL", default=default, help="origin of an admin listener on TCP"
        )
    common.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        default=default,
        help="holds admin.token, or a project's token with the scope admin "
        "(or $LLMPROXYD_ADMIN_TOKEN holds it itself)",
    )
    common.add_argument(
        "--json", action="store_true", default=default or False, help="print what the daemon answers as JSON"
    )
    return common


def url(text: str) -> str:
    """An origin."""
    try:
        return checked_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def duration(text: str) -> float:
    """Seconds."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def interval(text: str) -> float:
    """Seconds between looks."""
    seconds = duration(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"found {text!r}; accepted: 100ms to 1h")
    return seconds


def number(text: str) -> int | None:
    """A whole number; ``none`` stands for no limit."""
    if text == "none":
        return None
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    raise argparse.ArgumentTypeError(f'found {text!r}; accepted: a whole number, or "none"')
