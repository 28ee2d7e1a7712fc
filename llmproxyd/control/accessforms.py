"""What may be said of projects and tokens: forms in, plain values out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Limits, Project, Scope, Token
from llmproxyd.config import texts
from llmproxyd.control.forms import Choice, Flag, Form, Kind, ListOf, MapOf, Nullable, Text, Whole
from llmproxyd.control.moments import ACCEPTED, PATTERN, parse_moment, stamp
from llmproxyd.control.names import Names
from llmproxyd.control.wrong import Invalid, Wrong
from llmproxyd.redaction import Secret
from llmproxyd.units import parse_duration

ALL = Allow()
UNLIMITED = Limits()

SET = "[set]"
NONE = "[none]"
"""Stands for an empty credential: requests go there without any."""

_EDGE = r"[^\x00-\x20\x7f-\xa0]"
_INNER = r"[^\x00-\x1f\x7f-\xa0]"
NAME = Text(
    "a name of 1 to 100 characters, without line breaks and without spaces at its ends",
    pattern=rf"{_EDGE}(?:{_INNER}{{0,98}}{_EDGE})?",
    most=100,
)
NOTE = Text("a text of at most 100 characters on one line", pattern=rf"{_INNER}{{0,100}}", most=100)
ID = Text(
    'letters, digits, "_" and "-", 64 at most, a letter first', pattern="[A-Za-z][A-Za-z0-9_-]{0,63}", most=64
)
CREDENTIAL = Text(
    "a key of visible ASCII characters; empty where requests need none",
    pattern="[!-~]{0,8192}",
    most=8192,
    form=Secret,
    secret=True,
)
SECRET_KEY = Text(
    "16 to 1024 visible ASCII characters", pattern="[!-~]{16,1024}", most=1024, form=Secret, secret=True
)
MOMENT = Text(
    ACCEPTED,
    most=64,
    form=parse_moment,
    formats=({"pattern": f"^{PATTERN}$"}, {"format": "date"}, {"format": "date-time"}),
)
GRACE = Text(
    'a duration such as "10m" or "2d", of 30 days at most, or "0s"',
    pattern="(?:0s|[1-9][0-9]{0,5}s|[1-9][0-9]{0,3}m|[1-9][0-9]?h|(?:[1-9]|[12][0-9]|30)d)",
    most=8,
    form=parse_duration,
)
PER_MINUTE = Nullable(Whole(1, 10**9))
LIFETIME = Nullable(Whole(1, 10**12))
LIMITS = Form(
    {"rpm": PER_MINUTE, "tpm": PER_MINUTE},
    told={"rpm": "requests a minute", "tpm": "tokens of models a minute"},
)
SCOPES = ListOf(Choice([scope.value for scope in Scope]), most=len(Scope))

_SEGMENT = r"""(?:\*|\*?\.*(?:[!"$&'()+,:<=>@A-Z\[\]^_`a-z{|}~0-9-]\.*\*?)+)"""
"""Of a pattern of paths: visible characters but for those that servers read in several ways, and not dots
alone."""

ALLOW = Form(
    {
        "endpoints": ListOf(
            Text(
                'a path in the clear that starts with "/", such as "/v1/models", "/v1/files/*" or "/v1/**" '
                "(** once, between two slashes or at the end)",
                rf"(?:/|(?:/{_SEGMENT})+/?|(?:/{_SEGMENT})*/\*\*(?:/{_SEGMENT})*)",
                500,
            )
        ),
        "methods": ListOf(Text('a method in upper case, such as "POST"', "[A-Z]{1,20}", 20), most=20),
        "params": MapOf(
            Text('the name of a parameter, without "["', r"[!-Z\\\]-~]{1,100}", 100),
            ListOf(Text("a value, in which * stands for anything", rf"{_INNER}{{1,200}}", 200), least=1),
            most=50,
        ),
        "origins": ListOf(
            Text(
                f'{texts.ORIGIN}, or "*"',
                r"(?:\*|[A-Za-z][A-Za-z0-9+.-]{0,20}://"
                r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,200})(?::[0-9]{1,5})?)",
                250,
                form=str.lower,
            )
        ),
        "required_headers": ListOf(
            Text(
                texts.HEADER,
                r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}(?:: ?[ -~]{1,200})?",
                310,
                form=texts.header,
            ),
            most=50,
        ),
    }
)


class AccessForms:
    """The forms of all verbs about projects and tokens.

    :param upstreams: names of those that a credential can be for.
    """

    def __init__(self, upstreams: Collection[str]) -> None:
        names = Choice(Names(upstreams))
        keys = MapOf(names, CREDENTIAL)
        changes = MapOf(names, Nullable(CREDENTIAL))
        common: dict[str, Kind] = {"name": NAME, "active": Flag(), "allow": ALLOW, "limits": LIMITS}
        told = {"credentials": "the provider's key by the name of the upstream"}
        self.project = Form({"id": ID, **common, "credentials": keys}, required=("name",), told=told)
        self.project_change = Form(
            {**common, "credentials": changes},
            least=1,
            told={"credentials": "keys by upstream; null takes one away, what is not named stays"},
        )
        self.credentials = Form({"credentials": keys}, required=("credentials",), told=told)
        settings: dict[str, Kind] = {
            "name": NOTE,
            "active": Flag(),
            "expires": Nullable(MOMENT),
            "max_requests": LIFETIME,
            "limits": LIMITS,
            "scopes": SCOPES,
        }
        project = Text("id or name of a project", rf"{_EDGE}(?:{_INNER}{{0,98}}{_EDGE})?", 100)
        self.token = Form({"project": project, **settings}, required=("project",))
        self.token_change = Form(settings, least=1)
        self.token_rotation = Form({"grace": GRACE}, told={"grace": "how long the old secret works still"})
        self.key = Form({"secret_key": SECRET_KEY}, required=("secret_key",))


def allow_of(read: Mapping[str, Any], base: Allow = ALL) -> Allow:
    """*base* with what was given in place of its members.

    :raises Invalid: 400, for a pattern that no path could be held against.
    """
    given = dict(read)
    if "params" in given:
        given["params"] = MappingProxyType(dict(given["params"]))
    allow = replace(base, **given)
    wrong = [Wrong(f"/allow/{key}", "a value that cannot be meant", text) for key, text in allow.problems()]
    if wrong:
        raise Invalid(wrong)
    return allow


def limits_of(read: Mapping[str, Any], base: Limits = UNLIMITED) -> Limits:
    """*base* with what was given in place of its members."""
    return replace(base, **read)


def shown_project(project: Project) -> dict[str, object]:
    """*project* for people and JSON; its credentials are not in it."""
    allow = project.allow
    return {
        "id": project.id,
        "name": project.name,
        "active": project.active,
        "credentials": {
            name: SET if key.reveal() else NONE for name, key in sorted(project.credentials.items())
        },
        "allow": {
            "endpoints": list(allow.endpoints),
            "methods": list(allow.methods),
            "params": {name: list(values) for name, values in allow.params.items()},
            "origins": list(allow.origins),
            "required_headers": list(allow.required_headers),
        },
        "limits": shown_limits(project.limits),
        "created": stamp(project.created),
        "updated": stamp(project.updated),
    }


def shown_token(token: Token, wall: float) -> dict[str, object]:
    """*token* for people and JSON, without what it could be guessed from."""
    return {
        "id": token.id,
        "project": token.project,
        "shown": token.shown,
        "name": token.name,
        "state": state_of(token, wall),
        "active": token.active,
        "expires": stamp(token.expires_at),
        "max_requests": token.max_requests,
        "limits": shown_limits(token.limits),
        "scopes": sorted(scope.value for scope in token.scopes),
        "created": stamp(token.created),
        "last_used": stamp(token.last_used),
        "requests": token.requests,
        "tokens": token.tokens,
    }


def shown_limits(limits: Limits) -> dict[str, int | None]:
    """*limits* for people and JSON."""
    return {"rpm": limits.rpm, "tpm": limits.tpm}


STATES: Sequence[str] = ("active", "inactive", "expired", "used up")


def state_of(token: Token, wall: float) -> str:
    """One word on what *token* is good for."""
    if not token.active:
        return "inactive"
    if token.expires_at is not None and token.expires_at <= wall:
        return "expired"
    if token.max_requests is not None and token.requests >= token.max_requests:
        return "used up"
    return "active"
