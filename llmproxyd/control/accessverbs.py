"""The verbs about projects, tokens and what was used, as lines: mapped to forms, shown as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxyd.control.accessforms import MOMENT
from llmproxyd.control.answers import Answer
from llmproxyd.control.forms import Form, taken
from llmproxyd.control.ledger import MOST
from llmproxyd.control.projects import MONTH, Projects
from llmproxyd.control.tables import members, plain, table
from llmproxyd.control.turn import Turn, of_members
from llmproxyd.errors import Refused

_LISTS: Mapping[str, str] = {
    "allow_endpoint": "endpoints",
    "allow_method": "methods",
    "allow_origin": "origins",
    "require_header": "required_headers",
}
_SINCE = Form({"since": MOMENT})


def _projects(turn: Turn) -> Projects:
    projects = turn.means.projects
    if projects is None:
        raise Refused(404, "access_disabled", "Access is off here; access.enabled: true switches it on.")
    return projects


async def project_list(turn: Turn) -> Answer:
    """``project list``."""
    found = await _projects(turn).list(MOST)
    rows = [
        (
            one["name"],
            one["id"],
            "active" if one["active"] else "inactive",
            list(one["credentials"]),
            one["limits"]["rpm"],
            one["limits"]["tpm"],
            one["created"],
        )
        for one in found["projects"]
    ]
    heads = ("NAME", "ID", "STATE", "CREDENTIALS", "RPM", "TPM", "CREATED")
    return _listed(turn, heads, rows, found, right=(4, 5))


async def project_show(turn: Turn) -> Answer:
    """``project show``."""
    return of_members(await _projects(turn).show(turn.values["project"]))


async def project_create(turn: Turn) -> Answer:
    """``project create``."""
    body = _project_body(turn.values)
    body["name"] = turn.values["name"]
    if "id" in turn.values:
        body["id"] = turn.values["id"]
    if turn.values.get("inactive"):
        body["active"] = False
    return of_members(await _projects(turn).create(turn.caller, body))


async def project_update(turn: Turn) -> Answer:
    """``project update``."""
    body = _project_body(turn.values)
    if "name" in turn.values:
        body["name"] = turn.values["name"]
    for upstream in turn.values.get("remove_credential", ()):
        body.setdefault("credentials", {})[upstream] = None
    return of_members(await _projects(turn).update(turn.caller, turn.values["project"], body))


async def project_activate(turn: Turn) -> Answer:
    """``project activate``."""
    return of_members(await _projects(turn).activate(turn.caller, turn.values["project"]))


async def project_deactivate(turn: Turn) -> Answer:
    """``project deactivate``."""
    return of_members(await _projects(turn).deactivate(turn.caller, turn.values["project"]))


async def project_delete(turn: Turn) -> Answer:
    """``project delete``."""
    projects, name = _projects(turn), turn.values["project"]
    if turn.console.terminal:
        found = await projects.show(name)
        return turn.asking(f"Delete project {plain(found['name'])}, its tokens and its credentials?")
    gone = await projects.delete(turn.caller, name)
    return Answer(f"Deleted {plain(gone['deleted'])}, and {gone['tokens']} tokens with it.\n", data=gone)


async def project_rotate(turn: Turn) -> Answer:
    """``project rotate``."""
    body = {"credentials": dict(turn.values["credential"])}
    return of_members(await _projects(turn).rotate(turn.caller, turn.values["project"], body))


async def token_list(turn: Turn) -> Answer:
    """``token list``."""
    found = await _projects(turn).tokens.list(turn.values.get("project"), MOST)
    rows = [
        (
            one["id"],
            one["name"],
            one["project"],
            one["shown"],
            one["state"],
            one["requests"],
            one["max_requests"],
            one["expires"],
            one["last_used"],
        )
        for one in found["tokens"]
    ]
    heads = ("ID", "NAME", "PROJECT", "TOKEN", "STATE", "REQUESTS", "OF", "EXPIRES", "LAST USED")
    return _listed(turn, heads, rows, found, right=(5, 6))


async def token_show(turn: Turn) -> Answer:
    """``token show``."""
    return of_members(await _projects(turn).tokens.show(turn.values["token"]))


async def token_create(turn: Turn) -> Answer:
    """``token create``."""
    body = {"project": turn.values["project"], **_token_body(turn.values)}
    return _told_once(await _projects(turn).tokens.create(turn.caller, body))


async def token_update(turn: Turn) -> Answer:
    """``token update``."""
    body = _token_body(turn.values)
    return of_members(await _projects(turn).tokens.update(turn.caller, turn.values["token"], body))


async def token_activate(turn: Turn) -> Answer:
    """``token activate``."""
    return of_members(await _projects(turn).tokens.activate(turn.caller, turn.values["token"]))


async def token_deactivate(turn: Turn) -> Answer:
    """``token deactivate``."""
    return of_members(await _projects(turn).tokens.deactivate(turn.caller, turn.values["token"]))


async def token_revoke(turn: Turn) -> Answer:
    """``token revoke``."""
    return of_members(await _projects(turn).tokens.revoke(turn.caller, turn.values["token"]))


async def token_delete(turn: Turn) -> Answer:
    """``token delete``."""
    gone = await _projects(turn).tokens.delete(turn.caller, turn.values["token"])
    return Answer(f"Deleted {plain(gone['deleted'])}.\n", data=gone)


async def token_rotate(turn: Turn) -> Answer:
    """``token rotate``."""
    body = {"grace": turn.values["grace"]} if "grace" in turn.values else {}
    return _told_once(await _projects(turn).tokens.rotate(turn.caller, turn.values["token"], body))


async def usage(turn: Turn) -> Answer:
    """``usage``."""
    by = turn.values.get("by", "project")
    since = MONTH
    if "since" in turn.values:
        since = taken(_SINCE, {"since": turn.values["since"]}, "invalid_query")["since"]
    found = await _projects(turn).usage(by, since, turn.values.get("limit", MOST))
    rows = [
        (one["label"] or one["name"], one["name"], one["requests"], one["input"], one["output"], one["cost"])
        for one in found["usage"]
    ]
    text = table(
        (by.upper(), "ID", "REQUESTS", "INPUT", "OUTPUT", "COST"),
        rows,
        right=(2, 3, 4, 5),
        colour=turn.colour,
    )
    more = f"… and {found['left_out']} more\n" if found["left_out"] else ""
    return Answer(f"Since {found['since']} (UTC)\n{text}\n{more}", data=found)


def _listed(
    turn: Turn, heads: tuple[str, ...], rows: list[Any], found: Mapping[str, Any], right: tuple[int, ...]
) -> Answer:
    if not rows:
        return Answer("None yet.\n", data=found)
    more = f"… and more than {MOST}; llmproxyctl lists them all\n" if found["next"] else ""
    return Answer(table(heads, rows, right=right, colour=turn.colour) + "\n" + more, data=found)


def _told_once(made: Mapping[str, Any]) -> Answer:
    shown = {name: value for name, value in made.items() if name != "token"}
    text = f"{members(shown)}\nThe token is shown this once:\n{made['token']}\n"
    return Answer(text, data=made)


def _limits(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in ("rpm", "tpm") if name in values}


def _project_body(values: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if "credential" in values:
        body["credentials"] = dict(values["credential"])
    if limits := _limits(values):
        body["limits"] = limits
    allow: dict[str, Any] = {
        member: [] if values[key] == ("none",) else list(values[key])
        for key, member in _LISTS.items()
        if key in values
    }
    if "allow_param" in values:
        allow["params"] = {} if values["allow_param"] == ("none",) else _params(values["allow_param"])
    if allow:
        body["allow"] = allow
    return body


def _params(texts: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, value = text.partition("=")
        found.setdefault(name, []).extend(value.split(","))
    return found


def _token_body(values: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {name: values[name] for name in ("name", "max_requests") if name in values}
    if "expires" in values:
        body["expires"] = None if values["expires"] == "never" else values["expires"]
    if limits := _limits(values):
        body["limits"] = limits
    if "scope" in values:
        body["scopes"] = [scope for scope in values["scope"] if scope != "none"]
    return body
