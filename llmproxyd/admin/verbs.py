"""What each verb of ``llmproxyctl`` asks of the daemon, and shows of the answer.

Each takes the command line and a :class:`Desk`, and returns the exit status.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from llmproxyd.admin.client import Client
from llmproxyd.admin.secrets import SecretSource
from llmproxyd.control.accessbodies import changed_project, new_project, token_settings
from llmproxyd.control.accesstables import tokens_table, usage_table
from llmproxyd.control.tables import members, plain, table

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3


class UsageError(Exception):
    """The command line cannot be meant."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What verbs work with.

    :param json: print what was answered as it is.
    """

    client: Client
    secrets: SecretSource
    json: bool

    def show(self, value: Any, text: str) -> int:
        """Print *value*, for people as *text*."""
        print(json.dumps(value, indent=2, ensure_ascii=False) if self.json else text)
        return DONE


def say(text: str) -> None:
    """Tell people something beside what is printed."""
    print(text, file=sys.stderr)


def confirmed(question: str) -> bool:
    """Whether whoever is at the terminal says yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    say("Nothing has changed.")
    return False


# Projects.


def project_create(given: Namespace, desk: Desk) -> int:
    """Make a project."""
    body = new_project(_project_values(given, desk))
    made = desk.client.call("POST", "projects", body=body)
    return desk.show(made, members(made))


def project_list(given: Namespace, desk: Desk) -> int:
    """List projects."""
    found = desk.client.every("projects", "projects")
    rows = [
        (
            one["name"],
            one["id"],
            one["active"],
            list(one["credentials"]),
            one["limits"]["rpm"],
            one["limits"]["tpm"],
            one["created"],
        )
        for one in found
    ]
    heads = ("NAME", "ID", "ACTIVE", "CREDENTIALS", "RPM", "TPM", "CREATED")
    return desk.show(found, table(heads, rows, right=(4, 5)))


def project_show(given: Namespace, desk: Desk) -> int:
    """Show a project."""
    found = desk.client.call("GET", "projects", given.project)
    return desk.show(found, members(found))


def project_update(given: Namespace, desk: Desk) -> int:
    """Change a project."""
    return _project_changed(given, desk, changed_project(_project_values(given, desk)))


def project_activate(given: Namespace, desk: Desk) -> int:
    """Let its tokens be used again."""
    return _project_changed(given, desk, {"active": True})


def project_deactivate(given: Namespace, desk: Desk) -> int:
    """Refuse all its tokens."""
    return _project_changed(given, desk, {"active": False})


def project_delete(given: Namespace, desk: Desk) -> int:
    """Delete a project."""
    if sys.stdin.isatty() and not given.yes:
        say(f"Project {plain(given.project)}, its tokens and its credentials will be gone.")
        if not confirmed("Delete it?"):
            return REFUSED
    gone = desk.client.call("DELETE", "projects", given.project)
    return desk.show(gone, f"Deleted {plain(gone['deleted'])}, and {_many(gone['tokens'], 'token')} with it.")


def project_rotate(given: Namespace, desk: Desk) -> int:
    """Replace credentials."""
    body = {"credentials": _credentials(given, desk)}
    changed = desk.client.call("POST", "projects", given.project, "rotate", body=body)
    return desk.show(changed, members(changed))


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _project_changed(given: Namespace, desk: Desk, body: dict[str, Any]) -> int:
    if not body:
        raise UsageError("nothing to change; --help lists what can be")
    changed = desk.client.call("PATCH", "projects", given.project, body=body)
    return desk.show(changed, members(changed))


def _project_values(given: Namespace, desk: Desk) -> dict[str, Any]:
    """The words of a verb about projects, with the keys themselves."""
    values = dict(vars(given))
    if "credential" in values:
        values["credential"] = _credentials(given, desk)
    for text in values.get("allow_param", ()):
        if "=" not in text and values["allow_param"] != ["none"]:
            raise UsageError(f"--allow-param {text!r}: accepted: NAME=VALUE[,VALUE…]")
    return values


def _credentials(given: Namespace, desk: Desk) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given.credential:
        upstream, equals, rest = text.partition("=")
        if upstream in found:
            raise UsageError(f"--credential {upstream} stands there twice")
        what = f"key for {upstream}"
        found[upstream] = desk.secrets.read(rest if equals else None, what, f"--credential {upstream}=")
    return found


# Tokens.


def token_create(given: Namespace, desk: Desk) -> int:
    """Make a token."""
    body = {"project": given.project, **token_settings(_token_values(given))}
    made = desk.client.call("POST", "tokens", body=body)
    return _told_once(made, desk)


def token_list(given: Namespace, desk: Desk) -> int:
    """List tokens."""
    found = desk.client.every("tokens", "tokens", query={"project": vars(given).get("project")})
    return desk.show(found, tokens_table(found))


def token_show(given: Namespace, desk: Desk) -> int:
    """Show a token."""
    return _token_answer(given, desk, "GET")


def token_update(given: Namespace, desk: Desk) -> int:
    """Change a token."""
    body = token_settings(_token_values(given))
    if not body:
        raise UsageError("nothing to change; --help lists what can be")
    return _token_answer(given, desk, "PATCH", body=body)


def token_activate(given: Namespace, desk: Desk) -> int:
    """Let a token be used again."""
    return _token_answer(given, desk, "PATCH", body={"active": True})


def token_deactivate(given: Namespace, desk: Desk) -> int:
    """Refuse a token."""
    return _token_answer(given, desk, "PATCH", body={"active": False})


def token_revoke(given: Namespace, desk: Desk) -> int:
    """Refuse a token from now on."""
    return _token_answer(given, desk, "POST", "revoke")


def token_delete(given: Namespace, desk: Desk) -> int:
    """Delete a token."""
    gone = desk.client.call("DELETE", "tokens", _reference(given.token))
    return desk.show(gone, f"Deleted {plain(gone['deleted'])}.")


def token_rotate(given: Namespace, desk: Desk) -> int:
    """Give a token a new secret."""
    body = {"grace": given.grace} if "grace" in given else {}
    return _told_once(desk.client.call("POST", "tokens", _reference(given.token), "rotate", body=body), desk)


def _token_answer(
    given: Namespace, desk: Desk, method: str, *more: str, body: dict[str, Any] | None = None
) -> int:
    found = desk.client.call(method, "tokens", _reference(given.token), *more, body=body)
    return desk.show(found, members(found))


def _reference(name: str) -> str:
    """*name* for a URL: a token itself goes there as its digest, as URLs are shown and logged."""
    return f"sha256:{sha256(name.encode()).hexdigest()}" if name.startswith("sk-") else name


def _told_once(made: dict[str, Any], desk: Desk) -> int:
    # The token alone is printed, so that a script can take it: TOKEN=$(llmproxyctl token create …).
    if not desk.json:
        until = f", until {made['expires']}" if made["expires"] else ""
        say(f"Token {plain(made['id'])} of project {plain(made['project'])}{until}. It is shown this once:")
    return desk.show(made, made["token"])


def _token_values(given: Namespace) -> dict[str, Any]:
    """The words of a verb about tokens."""
    values = dict(vars(given))
    if values.get("expires") == "none":
        values["expires"] = "never"
    return values


# Everything else.


def status(given: Namespace, desk: Desk) -> int:
    """Show how everything stands."""
    found = desk.client.call("GET", "status")
    return desk.show(found, members(found))


def usage(given: Namespace, desk: Desk) -> int:
    """Show what was used."""
    query = {"by": given.by, "since": given.since, "limit": given.limit}
    found = desk.client.call("GET", "usage", query=query)
    return desk.show(found, usage_table(found, given.by))


def cache_stats(given: Namespace, desk: Desk) -> int:
    """Show what the cache holds."""
    found = desk.client.call("GET", "cache")
    return desk.show(found, members(found))


def cache_purge(given: Namespace, desk: Desk) -> int:
    """Forget what the cache holds."""
    wanted = {
        "url": given.purge_url,
        "prefix": given.prefix,
        "project": given.project,
        "all": given.all or None,
    }
    body = {name: value for name, value in wanted.items() if value is not None}
    gone = desk.client.call("POST", "cache", "purge", body=body)
    return desk.show(gone, f"Entries purged: {gone['purged']}")


def breaker(given: Namespace, desk: Desk) -> int:
    """Show the circuit breakers, or switch one."""
    if given.action in (None, "show"):
        if given.name is not None:
            raise UsageError("breaker show takes no name: it shows all of them")
        found = desk.client.call("GET", "breakers")
    elif given.name is None:
        raise UsageError(f"breaker {given.action}: which one? breaker lists them")
    else:
        body = {"name": given.name, "action": given.action}
        found = desk.client.call("POST", "breakers", body=body)
    rows = [
        (one["name"], one["state"], one["failures"], one["left"], one["opened"]) for one in found["breakers"]
    ]
    heads = ("NAME", "STATE", "FAILURES", "SECONDS LEFT", "OPENED")
    text = table(heads, rows, right=(2, 3, 4)) if rows else "No breaker has been needed so far."
    return desk.show(found, text)


def test(given: Namespace, desk: Desk) -> int:
    """Test an upstream; the exit status says how it went."""
    found = desk.client.call("POST", "upstreams", given.upstream, "test")
    sent, received = found.get("sent") or {}, found.get("received")
    lines = [f"{plain(found['upstream'])}: {plain(found['verdict'])}"]
    lines.append(f"sent      {plain(sent.get('method'))} {plain(sent.get('url'))}")
    lines += [f"          {plain(name)}: {plain(value)}" for name, value in sent.get("headers", [])]
    if received:
        lines.append(f"received  {plain(received.get('status'))}")
        lines += [f"          {plain(name)}: {plain(value)}" for name, value in received.get("headers", [])]
        lines += [f"          {plain(line)}" for line in str(received.get("body", "")).splitlines()[:20]]
    desk.show(found, "\n".join(lines))
    return DONE if found["ok"] else REFUSED


def key_rotate(given: Namespace, desk: Desk) -> int:
    """Encrypt all credentials under another key."""
    new = desk.secrets.read(given.to, "new access.secret_key", "--to ")
    done = desk.client.call("POST", "key", "rotate", body={"secret_key": new})
    count = _many(done["credentials"], "credential")
    text = f"The new key holds, for {count}. Where access.secret_key is set, set it to the new one."
    return desk.show(done, text)


def config_show(given: Namespace, desk: Desk) -> int:
    """Show the configuration in force."""
    import yaml

    found = desk.client.call("GET", "config")
    return desk.show(found, yaml.safe_dump(found, sort_keys=False, allow_unicode=True).rstrip("\n"))
