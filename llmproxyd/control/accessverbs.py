"""The verbs about projects, tokens and what was used, as lines: mapped to forms, shown as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmproxyd.control.accessbodies import changed_project, new_project, token_settings
from llmproxyd.control.accessforms import MOMENT
from llmproxyd.control.accesstables import tokens_table, usage_table
from llmproxyd.control.answers import Answer
from llmproxyd.control.forms import Form, taken
from llmproxyd.control.ledger import MOST
from llmproxyd.control.projects import MONTH, Projects
from llmproxyd.control.tables import members, plain, table
from llmproxyd.control.turn import Turn, of_members
from llmproxyd.errors import Refused

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
    return _listed(turn, table(heads, rows, right=(4, 5), colour=turn.colour), rows, found)


async def project_show(turn: Turn) -> Answer:
    """``project show``."""
    return of_members(await _projects(turn).show(turn.values["project"]))


async def project_create(turn: Turn) -> Answer:
    """``project create``."""
    return of_members(await _projects(turn).create(turn.caller, new_project(turn.values)))


async def project_update(turn: Turn) -> Answer:
    """``project update``."""
    body = changed_project(turn.values)
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
    return _listed(turn, tokens_table(found["tokens"], colour=turn.colour), found["tokens"], found)


async def token_show(turn: Turn) -> Answer:
    """``token show``."""
    return of_members(await _projects(turn).tokens.show(turn.values["token"]))


async def token_create(turn: Turn) -> Answer:
    """``token create``."""
    body = {"project": turn.values["project"], **token_settings(turn.values)}
    return _told_once(await _projects(turn).tokens.create(turn.caller, body))


async def token_update(turn: Turn) -> Answer:
    """``token update``."""
    body = token_settings(turn.values)
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
    return Answer(usage_table(found, by, colour=turn.colour) + "\n", data=found)


def _listed(turn: Turn, text: str, rows: Sequence[object], found: Mapping[str, Any]) -> Answer:
    if not rows:
        return Answer("None yet.\n", data=found)
    more = f"… and more than {MOST}; llmproxyctl lists them all\n" if found["next"] else ""
    return Answer(f"{text}\n{more}", data=found)


def _told_once(made: Mapping[str, Any]) -> Answer:
    shown = {name: value for name, value in made.items() if name != "token"}
    text = f"{members(shown)}\nThe token is shown this once:\n{made['token']}\n"
    return Answer(text, data=made)
