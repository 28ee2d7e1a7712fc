"""The verbs of ``llmproxyctl`` about projects and tokens, and their options."""

from __future__ import annotations

import argparse
from typing import Any

from llmproxyd.admin import verbs
from llmproxyd.admin.tree import Tree, number
from llmproxyd.language.grammar import Option
from llmproxyd.language.kinds import Choice, Count, Kind
from llmproxyd.language.table import TABLE


def project(tree: Tree) -> None:
    """Below ``project``."""
    create = tree.verb(
        "create",
        verbs.project_create,
        "make a project",
        "project create team-a --credential openai=@openai.key --rpm 600",
        "project create team-b --credential anthropic  # asks for the key",
    )
    create.add_argument("name", metavar="NAME")
    _options(create, "project create")
    tree.verb("list", verbs.project_list, "list projects", "project list")
    _named(tree.verb("show", verbs.project_show, "show a project", "project show team-a"), "PROJECT")
    update = tree.verb(
        "update",
        verbs.project_update,
        "change what is named and keep the rest",
        "project update team-a --rpm 1200 --allow-param 'model=gpt-4o,gpt-4o-*'",
        "project update team-a --remove-credential mistral --tpm none",
    )
    _named(update, "PROJECT")
    _options(update, "project update")
    for name, handler, about in (
        ("activate", verbs.project_activate, "let its tokens be used again"),
        ("deactivate", verbs.project_deactivate, "refuse all its tokens"),
    ):
        _named(tree.verb(name, handler, about, f"project {name} team-a"), "PROJECT")
    delete = tree.verb(
        "delete",
        verbs.project_delete,
        "delete a project, its tokens and credentials",
        "project delete team-a",
    )
    _named(delete, "PROJECT")
    delete.add_argument("--yes", "-y", action="store_true", help="do not ask at a terminal")
    rotate = tree.verb(
        "rotate",
        verbs.project_rotate,
        "replace credentials",
        "project rotate team-a --credential openai=@new.key",
    )
    _named(rotate, "PROJECT")
    _options(rotate, "project rotate")


def token(tree: Tree) -> None:
    """Below ``token``."""
    create = tree.verb(
        "create",
        verbs.token_create,
        "make a token, and print it this once",
        "token create --project team-a --name ci --expires 30d --rpm 60",
        "token create --project team-a --scope fault --max-requests 1000",
    )
    _options(create, "token create")
    listing = tree.verb(
        "list", verbs.token_list, "list tokens, the newest first", "token list --project team-a"
    )
    _options(listing, "token list")
    _named(tree.verb("show", verbs.token_show, "show a token", "token show tok_…"), "TOKEN")
    update = tree.verb(
        "update",
        verbs.token_update,
        "change what is named and keep the rest",
        "token update ci --expires 90d --rpm none",
    )
    _named(update, "TOKEN")
    _options(update, "token update")
    for name, handler, about in (
        ("activate", verbs.token_activate, "let it be used again"),
        ("deactivate", verbs.token_deactivate, "refuse it until it is activated"),
        ("revoke", verbs.token_revoke, "refuse it: inactive and expired; it stays on record"),
        ("delete", verbs.token_delete, "delete it; what was used with it stays"),
    ):
        _named(tree.verb(name, handler, about, f"token {name} tok_…", f"token {name} ci"), "TOKEN")
    rotate = tree.verb(
        "rotate",
        verbs.token_rotate,
        "give it a new secret, and print that this once",
        "token rotate ci",
        "token rotate ci --grace 2d",
    )
    _named(rotate, "TOKEN")
    _options(rotate, "token rotate")


def _named(parser: argparse.ArgumentParser, what: str) -> None:
    told = "id, name or the token itself" if what == "TOKEN" else "id or name"
    parser.add_argument(what.lower(), metavar=what, help=told)


def _options(parser: argparse.ArgumentParser, words: str) -> None:
    """Those that the verb *words* has in the operator's language; of what is not given there is no value."""
    verb = TABLE.verb(tuple(words.split()))
    assert verb is not None
    for one in verb.options:
        if one.name == "--credential":
            _credentials(parser, required=one.required)
        elif one.kind is None:
            parser.add_argument(one.name, action="store_true", default=argparse.SUPPRESS, help=one.about)
        else:
            _option(parser, one, one.kind)


def _option(parser: argparse.ArgumentParser, option: Option, kind: Kind) -> None:
    about = f"{option.about} ({kind.accepted}{'; may be repeated' if option.many else ''})"
    given: dict[str, Any] = {"choices": kind.of} if isinstance(kind, Choice) else {"metavar": option.shows}
    if isinstance(kind, Count):
        given["type"] = number
    parser.add_argument(
        option.name,
        action="append" if option.many else "store",
        default=argparse.SUPPRESS,
        required=option.required,
        help=about.replace("%", "%%"),
        **given,
    )


def _credentials(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Keys need not stand in a shell's history, so there is more to it than in the operator's language."""
    parser.add_argument(
        "--credential",
        action="append",
        default=argparse.SUPPRESS,
        required=required,
        metavar="UPSTREAM[=KEY|=@FILE|=-]",
        help="the provider's key; UPSTREAM alone asks for it, @FILE reads it, - is standard input",
    )
