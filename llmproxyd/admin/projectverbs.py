"""The verbs of ``llmproxyctl`` about projects and tokens, and their options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llmproxyd.admin import verbs
from llmproxyd.admin.tree import Tree, number


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
    create.add_argument("--id", help="an id of your own")
    create.add_argument("--inactive", action="store_true", help="refuse its tokens for now")
    _credentials(create)
    _limits(create)
    _allow(create)
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
    update.add_argument("--name", dest="new_name", metavar="NAME", help="call it so from now on")
    _credentials(update)
    update.add_argument("--remove-credential", action="append", default=[], metavar="UPSTREAM")
    _limits(update)
    _allow(update)
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
    _credentials(rotate, required=True)


def token(tree: Tree) -> None:
    """Below ``token``."""
    create = tree.verb(
        "create",
        verbs.token_create,
        "make a token, and print it this once",
        "token create --project team-a --name ci --expires 30d --rpm 60",
        "token create --project team-a --scope fault --max-requests 1000",
    )
    create.add_argument("--project", required=True, metavar="PROJECT", help="id or name")
    _token_settings(create)
    listing = tree.verb(
        "list", verbs.token_list, "list tokens, the newest first", "token list --project team-a"
    )
    listing.add_argument("--project", metavar="PROJECT", help="of this one alone")
    _named(tree.verb("show", verbs.token_show, "show a token", "token show tok_…"), "TOKEN")
    update = tree.verb(
        "update",
        verbs.token_update,
        "change what is named and keep the rest",
        "token update ci --expires 90d --rpm none",
    )
    _named(update, "TOKEN")
    _token_settings(update)
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
    rotate.add_argument("--grace", metavar="DURATION", help="how long the old one works still (at most 30d)")


def _named(parser: argparse.ArgumentParser, what: str) -> None:
    told = "id, name or the token itself" if what == "TOKEN" else "id or name"
    parser.add_argument("name", metavar=what, help=told)


def _credentials(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument(
        "--credential",
        action="append",
        default=[],
        required=required,
        metavar="UPSTREAM[=KEY|=@FILE|=-]",
        help="the provider's key; UPSTREAM alone asks for it, @FILE reads it, - is standard input",
    )


def _limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rpm", type=number, metavar="N", help='requests a minute; "none" for any number')
    parser.add_argument(
        "--tpm", type=number, metavar="N", help='model tokens a minute; "none" for any number'
    )


def _allow(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("allowlist", 'each may be repeated; "none" empties a list')
    told: Sequence[tuple[str, str, str]] = (
        ("--allow-endpoint", "PATH", "/v1/models, /v1/files/ or a glob"),
        ("--allow-method", "METHOD", "POST"),
        ("--allow-param", "NAME=VALUE[,VALUE…]", "model=gpt-4o,gpt-4o-*"),
        ("--allow-origin", "ORIGIN", "web pages, http://localhost:3000"),
        ("--require-header", "NAME[: VALUE]", "a field that must be there"),
    )
    for option, metavar, about in told:
        group.add_argument(option, action="append", metavar=metavar, help=about)


def _token_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", dest="new_name", metavar="TEXT", help="what it is for")
    parser.add_argument("--expires", metavar="DURATION|DATE", help='30d, 2030-12-31, or "never"')
    parser.add_argument("--max-requests", type=number, metavar="N", help='over its whole life, or "none"')
    _limits(parser)
    parser.add_argument(
        "--scope",
        action="append",
        choices=("fault", "admin", "none"),
        help="what else it may do: ask for faults, use the admin API (may be repeated)",
    )
