"""What the admin API answers with, as JSON Schema 2020-12."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxyd.control.accessforms import NONE, SET, STATES
from llmproxyd.faults.limits import Each
from llmproxyd.verdicts.verdict import Name, Severity

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
MOMENT: Schema = {"type": "string", "format": "date-time"}
ANYTHING: Schema = {"type": "object"}
SECONDS: Schema = {"type": "number"}


def record(members: Mapping[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """An object with exactly these members, *optional* ones left out at times."""
    return {
        "type": "object",
        "properties": dict(members),
        "required": [name for name in members if name not in optional],
        "additionalProperties": False,
    }


def listing(items: Schema) -> Schema:
    """A list of *items*."""
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """*schema*, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def named(name: str) -> Schema:
    """A reference to the schema called *name*."""
    return {"$ref": f"#/components/schemas/{name}"}


def paged(member: str, name: str) -> Schema:
    """A part of a list, and the id to go on after."""
    return record({member: listing(named(name)), "next": nullable(TEXT)})


LIMITS = record({"rpm": nullable(COUNT), "tpm": nullable(COUNT)})
ALLOW = record(
    {
        "endpoints": listing(TEXT),
        "methods": listing(TEXT),
        "params": {"type": "object", "additionalProperties": listing(TEXT)},
        "origins": listing(TEXT),
        "required_headers": listing(TEXT),
    }
)
_TOKEN: dict[str, Schema] = {
    "id": TEXT,
    "project": TEXT,
    "shown": TEXT,
    "name": TEXT,
    "state": {"type": "string", "enum": list(STATES)},
    "active": FLAG,
    "expires": nullable(MOMENT),
    "max_requests": nullable(COUNT),
    "limits": LIMITS,
    "scopes": listing(TEXT),
    "created": MOMENT,
    "last_used": nullable(MOMENT),
    "requests": COUNT,
    "tokens": COUNT,
}
_RUNNING = record(
    {
        "name": TEXT,
        "error": TEXT,
        "words": TEXT,
        "remaining": nullable(COUNT),
        "passing": COUNT,
        "hits": COUNT,
        "ends_in": nullable({"type": "number"}),
    }
)
_LIMIT = record(
    {
        "name": TEXT,
        "rpm": nullable(COUNT),
        "tpm": nullable(COUNT),
        "key": {"type": "string", "enum": [one.value for one in Each]},
        "words": TEXT,
        "passed": {**COUNT, "description": "requests that it let through"},
        "refused": {**COUNT, "description": "those that it did not"},
        "ends_in": nullable(SECONDS),
    }
)
_FAULTS: dict[str, Schema] = {
    "active": FLAG,
    "words": TEXT,
    "mode": nullable(_RUNNING),
    "scenario": nullable(TEXT),
    "rules": listing(_RUNNING),
    "limits": listing(_LIMIT),
    "seed": nullable({"type": "integer"}),
}

ANSWERS: Mapping[str, Schema] = {
    "Error": record(
        {
            "error": record(
                {
                    "code": TEXT,
                    "message": TEXT,
                    "problems": listing(record({"pointer": TEXT, "found": TEXT, "accepted": TEXT})),
                },
                optional=("problems",),
            )
        }
    ),
    "Anything": ANYTHING,
    "Project": record(
        {
            "id": TEXT,
            "name": TEXT,
            "active": FLAG,
            "credentials": {
                "type": "object",
                "additionalProperties": {"type": "string", "enum": [SET, NONE]},
                "description": f"{SET} or {NONE} by upstream; the keys themselves never come out again",
            },
            "allow": ALLOW,
            "limits": LIMITS,
            "created": MOMENT,
            "updated": MOMENT,
        }
    ),
    "Projects": paged("projects", "Project"),
    "ProjectDeleted": record({"deleted": TEXT, "tokens": COUNT}),
    "Token": record(_TOKEN),
    "Tokens": paged("tokens", "Token"),
    "TokenMade": record(
        {**_TOKEN, "token": {**TEXT, "description": "the token itself, told this once"}, "replaces": TEXT},
        optional=("replaces",),
    ),
    "TokenDeleted": record({"deleted": TEXT}),
    "Usage": record(
        {
            "by": TEXT,
            "since": {"type": "string", "format": "date"},
            "usage": listing(
                record(
                    {
                        "name": TEXT,
                        "label": TEXT,
                        "requests": COUNT,
                        "input": COUNT,
                        "output": COUNT,
                        "cost": {"type": "number"},
                    }
                )
            ),
            "left_out": COUNT,
        }
    ),
    "KeyRotated": record({"credentials": COUNT}),
    "Purged": record({"purged": COUNT}),
    "Faults": record(_FAULTS),
    "Commanded": record({"text": TEXT, "ok": FLAG, "data": {}, **_FAULTS}),
    "Breakers": record({"breakers": listing(ANYTHING)}),
    "Tested": {
        "type": "object",
        "properties": {
            "upstream": TEXT,
            "ok": FLAG,
            "verdict": TEXT,
            "sent": ANYTHING,
            "received": nullable(ANYTHING),
            "duration": {"type": "number"},
        },
        "required": ["upstream", "ok", "verdict"],
    },
    "Requests": record({"requests": listing(ANYTHING)}),
    "Verdict": record(
        {
            "name": {"type": "string", "enum": [name.value for name in Name]},
            "severity": {"type": "string", "enum": [one.value for one in Severity]},
            "text": {**TEXT, "description": "what was seen, one sentence"},
            "client": TEXT,
            "upstream": TEXT,
            "path": TEXT,
            "test": nullable(TEXT),
            "requests": {**listing(TEXT), "description": "ids of the requests that prove it, in order"},
            "times": {**listing(SECONDS), "description": "when each of them came, since the epoch"},
            "time": {**SECONDS, "description": "when it could be given, since the epoch"},
            "seen": {**COUNT, "description": "how often it was found of this client"},
            "docs": TEXT,
        }
    ),
    "Verdicts": record(
        {
            "verdicts": listing(named("Verdict")),
            "dropped": record({"requests": COUNT, "verdicts": COUNT}),
        }
    ),
    "VerdictsCleared": record({"cleared": COUNT}),
}
