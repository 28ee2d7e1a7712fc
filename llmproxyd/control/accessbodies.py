"""What is asked for of projects and tokens: from the words of a verb, as the admin API takes it.

The words are those that a line of the operator's language has, and the options of ``llmproxyctl``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LISTS: Mapping[str, str] = {
    "allow_endpoint": "endpoints",
    "allow_method": "methods",
    "allow_origin": "origins",
    "require_header": "required_headers",
}


def new_project(values: Mapping[str, Any]) -> dict[str, Any]:
    """The project that ``project create`` is to make."""
    body = _project(values)
    body["name"] = values["name"]
    if "id" in values:
        body["id"] = values["id"]
    if values.get("inactive"):
        body["active"] = False
    return body


def changed_project(values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``project update`` is to change."""
    body = _project(values)
    if "name" in values:
        body["name"] = values["name"]
    for upstream in values.get("remove_credential", ()):
        body.setdefault("credentials", {})[upstream] = None
    return body


def token_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``token create`` and ``token update`` say of the token itself."""
    body: dict[str, Any] = {name: values[name] for name in ("name", "max_requests") if name in values}
    if "expires" in values:
        body["expires"] = None if values["expires"] == "never" else values["expires"]
    if limits := _limits(values):
        body["limits"] = limits
    if "scope" in values:
        body["scopes"] = [scope for scope in values["scope"] if scope != "none"]
    return body


def _project(values: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if "credential" in values:
        body["credentials"] = dict(values["credential"])
    if limits := _limits(values):
        body["limits"] = limits
    allow: dict[str, Any] = {
        member: [] if _emptied(values[key]) else list(values[key])
        for key, member in _LISTS.items()
        if key in values
    }
    if "allow_param" in values:
        allow["params"] = {} if _emptied(values["allow_param"]) else _params(values["allow_param"])
    if allow:
        body["allow"] = allow
    return body


def _limits(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in ("rpm", "tpm") if name in values}


def _emptied(texts: Sequence[str]) -> bool:
    return list(texts) == ["none"]


def _params(texts: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, value = text.partition("=")
        found.setdefault(name, []).extend(value.split(","))
    return found
