"""The verbs about projects and tokens, with the options of ``llmproxyctl``."""

from __future__ import annotations

from llmproxyd.language.grammar import Argument, Option, Verb
from llmproxyd.language.kinds import Choice, Count, Free, Keyed

SECTION = "Projects and tokens"
_ROWS = 1000

_PROJECT = Free("id or name of a project", of="project")
_TOKEN = Free("id or name of a token, or the token itself")
_THE_PROJECT = Argument("PROJECT", _PROJECT)
_THE_TOKEN = Argument("TOKEN", _TOKEN)
_UPSTREAM = Free("the name of an upstream", of="upstream")

_CREDENTIAL = Option(
    "--credential",
    "the provider's key, by upstream",
    Keyed("UPSTREAM=KEY, the key empty where requests need none", of="upstream"),
    "UPSTREAM=KEY",
    many=True,
    secret=True,
)
_LIMITS = (
    Option("--rpm", "requests a minute", Count(1, 10**9, none="none"), "N"),
    Option("--tpm", "tokens of models a minute", Count(1, 10**9, none="none"), "N"),
)
_ALLOW = (
    Option(
        "--allow-endpoint", "/v1/models, /v1/files/ or a glob", Free("a path, or none"), "PATH", many=True
    ),
    Option("--allow-method", "POST", Free("a method, or none"), "METHOD", many=True),
    Option(
        "--allow-param",
        "model=gpt-4o,gpt-4o-*",
        Free("NAME=VALUE[,VALUE…], or none"),
        "NAME=VALUE",
        many=True,
    ),
    Option("--allow-origin", "of web pages", Free("an origin, or none"), "ORIGIN", many=True),
    Option(
        "--require-header", "a field that must be there", Free("NAME[: VALUE], or none"), "FIELD", many=True
    ),
)
_SETTINGS = (
    Option("--name", "what it is for", Free("a text"), "TEXT"),
    Option("--expires", "30d, 2030-12-31 or never", Free("a duration, a date or never"), "WHEN"),
    Option("--max-requests", "over its whole life", Count(1, 10**12, none="none"), "N"),
    *_LIMITS,
    Option("--scope", "what else it may do", Choice(("fault", "admin", "none")), "SCOPE", many=True),
)


def _verb(text: str, about: str, *more: Argument | Option, example: str = "", default: bool = False) -> Verb:
    words = tuple(text.split())
    return Verb(
        words=words,
        about=about,
        section=SECTION,
        arguments=tuple(one for one in more if isinstance(one, Argument)),
        options=tuple(one for one in more if isinstance(one, Option)),
        examples=(example,) if example else (),
        default=default,
        changes=words[-1] not in ("list", "show", "usage"),
    )


ACCESS = (
    _verb("project list", "List projects", default=True),
    _verb("project show", "Show a project", _THE_PROJECT),
    _verb(
        "project create",
        "Make a project",
        Argument("NAME", Free("a name")),
        Option("--id", "an id of your own", Free("an id"), "ID"),
        Option("--inactive", "refuse its tokens for now"),
        _CREDENTIAL,
        *_LIMITS,
        *_ALLOW,
        example="project create team-a --rpm 600",
    ),
    _verb(
        "project update",
        "Change what is named and keep the rest",
        _THE_PROJECT,
        Option("--name", "call it so from now on", Free("a name"), "NAME"),
        _CREDENTIAL,
        Option("--remove-credential", "take it away", _UPSTREAM, "UPSTREAM", many=True),
        *_LIMITS,
        *_ALLOW,
        example="project update team-a --rpm 1200 --allow-param 'model=gpt-4o,gpt-4o-*'",
    ),
    _verb("project activate", "Let its tokens be used again", _THE_PROJECT),
    _verb("project deactivate", "Refuse all its tokens", _THE_PROJECT),
    _verb("project delete", "Delete a project, its tokens and credentials; asks at a terminal", _THE_PROJECT),
    _verb(
        "project rotate",
        "Replace credentials that are there already",
        _THE_PROJECT,
        Option(
            "--credential",
            _CREDENTIAL.about,
            _CREDENTIAL.kind,
            "UPSTREAM=KEY",
            many=True,
            required=True,
            secret=True,
        ),
    ),
    _verb(
        "token list",
        "List tokens, the newest first",
        Option("--project", "of this one alone", _PROJECT, "PROJECT"),
        default=True,
    ),
    _verb("token show", "Show a token", _THE_TOKEN),
    _verb(
        "token create",
        "Make a token, and show it this once",
        Option("--project", "whose it is", _PROJECT, "PROJECT", required=True),
        *_SETTINGS,
        example="token create --project team-a --name ci --expires 30d",
    ),
    _verb(
        "token update",
        "Change what is named and keep the rest",
        _THE_TOKEN,
        *_SETTINGS,
        example="token update ci --expires 90d --rpm none",
    ),
    _verb("token activate", "Let a token be used again", _THE_TOKEN),
    _verb("token deactivate", "Refuse a token until it is activated", _THE_TOKEN),
    _verb("token revoke", "Refuse a token: inactive and expired; it stays on record", _THE_TOKEN),
    _verb("token delete", "Delete a token; what was used with it stays", _THE_TOKEN),
    _verb(
        "token rotate",
        "Give a token a new secret, and show that this once",
        _THE_TOKEN,
        Option("--grace", "how long the old one works still", Free("a duration, 30d at most"), "DURATION"),
        example="token rotate ci --grace 2d",
    ),
    _verb(
        "usage",
        "Show what was used",
        Option("--by", "project, unless another is named", Choice(("project", "token", "model")), "WHAT"),
        Option("--since", "30d unless told", Free("a duration or a date"), "WHEN"),
        Option("--limit", "rows at most", Count(1, _ROWS), "N"),
        example="usage --by token --since 7d",
    ),
)
