"""The ``api_providers.yaml`` of the gateway proxy package.

Known by its section ``apis``.  It stands on the preset ``gateway``, which asks for project tokens
and knows the program's variables.  Each API becomes an upstream of its name with an allowlist, and
a policy of that name where it says how long to wait.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from llmproxyd.config import texts
from llmproxyd.config.problems import Path, did_you_mean, quoted
from llmproxyd.config.translation import Import, is_null
from llmproxyd.config.tree import Entry, Listing, Node, Scalar, Table
from llmproxyd.providers.base import Provider
from llmproxyd.units import parse_duration

DEFAULT_API = "openai"
"""The API that the program turns to where its file names none."""

_LISTS = {"allowed_origins": "origins", "required_headers": "required_headers"}
_GO_DURATION = re.compile(r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+|[-+]?0")
_GO_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def translate(tree: Table, providers: Mapping[str, Provider]) -> Import:
    """*tree* as a configuration of ours.

    :param providers: by name; an API is taken for the one whose name or host it has.
    """
    made = Import("gateway", tree.source)
    for name, entry in tree.entries.items():
        if name not in ("apis", "default_api"):
            made.ignore(entry, (name,))
    apis = made.section(tree, "apis")
    if apis is None or not apis.entries:
        if not made.problems:
            made.wrong(tree.entries["apis"].value, ("apis",), "no API is there; accepted: one at least")
        return made
    for name, entry in apis.entries.items():
        _api(made, name, entry, providers)
    _default(made, tree.entries.get("default_api"), apis)
    return made


def _default(made: Import, entry: Entry | None, apis: Table) -> None:
    """Where requests go that show no sign of their provider; the only API gets all of them."""
    names = list(apis.entries)
    theirs: Path = ("default_api",)
    if entry is None or is_null(entry.value):
        if len(names) > 1 and DEFAULT_API not in names:
            made.wrong(apis, theirs, f"missing; accepted: one of {', '.join(names)}")
            return
        node: Node = Scalar(names[0] if len(names) == 1 else DEFAULT_API, apis.source, plain=False)
    else:
        node = entry.value
        if isinstance(node, Scalar) and node.text not in names:
            hint = did_you_mean(node.text, names)
            message = f"found {quoted(node.text)}, which is no API of the file{hint}; accepted: "
            made.wrong(node, theirs, message + ", ".join(names))
            return
    if made.problems:
        return  # what is wrong with an API is told already, and not again as a name without one
    made.put(("default_upstream",), theirs, node)
    if len(names) == 1:
        made.put(("server", "single_upstream"), theirs, Scalar(names[0], node.source, plain=False))


def _api(made: Import, name: str, entry: Entry, providers: Mapping[str, Provider]) -> None:
    """One API as an upstream."""
    theirs: Path = ("apis", name)
    try:
        texts.upstream_name(name)
    except ValueError as error:
        made.wrong(Scalar(name, entry.source), theirs, f"found {quoted(name)}; {error}")
        return
    table = entry.value
    if not isinstance(table, Table):
        made.wrong(table, theirs, "accepted: a mapping with base_url, allowed_endpoints, allowed_methods")
        return
    here = ("upstreams", name)
    for key, below in table.entries.items():
        place = (*theirs, key)
        if is_null(below.value) or key in ("base_url", "allowed_endpoints", "allowed_methods"):
            continue
        if key in _LISTS:
            made.put((*here, "allow", _LISTS[key]), place, below.value)
        elif key == "param_whitelist":
            made.put((*here, "allow", "params"), place, below.value)
        elif key == "timeouts" and isinstance(below.value, Table):
            _timeouts(made, name, below.value)
        elif key == "connection" and isinstance(below.value, Table):
            _connection(made, name, below.value)
        elif key in ("timeouts", "connection"):
            made.wrong(below.value, place, "accepted: a mapping")
        else:
            made.ignore(below, place)
    _needed(made, name, table, providers)


def _needed(made: Import, name: str, table: Table, providers: Mapping[str, Provider]) -> None:
    """What every API must say: the program does not start without it, as all would be allowed."""
    here, theirs = ("upstreams", name), ("apis", name)
    url: Node = table
    for key, accepted in (
        ("base_url", texts.BASE_URL),
        ("allowed_endpoints", 'a list of paths; "/" allows all'),
        ("allowed_methods", "a list of methods"),
    ):
        entry = table.entries.get(key)
        value = table if entry is None else entry.value
        if entry is None or is_null(value) or (isinstance(value, Listing) and not value.items):
            made.wrong(value, (*theirs, key), f"missing; accepted: {accepted}")
        elif key == "base_url":
            made.put((*here, key), (*theirs, key), value)
            url = value
        elif key == "allowed_methods":
            made.put((*here, "allow", "methods"), (*theirs, key), value)
        else:
            _endpoints(made, name, value)
    provider = _provider(name, url, providers)
    made.put((*here, "provider"), theirs, Scalar(provider, table.source, plain=False))


def _provider(name: str, url: Node, providers: Mapping[str, Provider]) -> str:
    """Whose API it is: by its name, else by its host, else OpenAI's, which most others speak too."""
    if name in providers:
        return name
    host = None
    try:
        if isinstance(url, Scalar):
            host = urlsplit(url.text).hostname
    except ValueError:
        pass  # told by whoever reads it as a URL
    hosts = {urlsplit(one.base_url).hostname: one.name for one in providers.values() if one.base_url}
    return hosts.get(host, "openai") if host else "openai"


def _endpoints(made: Import, name: str, value: Node) -> None:
    """The paths, each with what stands below it.

    To that program they are prefixes without a boundary, so that ``/v1/models`` lets ``/v1/modelsx``
    through too; here they end with a segment.
    """
    here, theirs = ("upstreams", name, "allow", "endpoints"), ("apis", name, "allowed_endpoints")
    made.put(here, theirs, value)
    if not isinstance(value, Listing):
        return
    items: list[Node] = []
    for number, item in enumerate(value.items):
        forms = [item]
        if isinstance(item, Scalar) and not item.text.endswith("/") and "*" not in item.text:
            forms.append(Scalar(f"{item.text}/", item.source, item.plain))
        for form in forms if _is_path(item) else [item]:
            made.names[(*here, len(items))] = (*theirs, number)
            items.append(form)
    made.put(here, theirs, Listing(tuple(items), value.source))


def _is_path(item: Node) -> bool:
    """Whether *item* is right by itself; a wrong one is told once."""
    if not isinstance(item, Scalar):
        return False
    try:
        texts.endpoint_path(item.text)
    except ValueError:
        return False
    return True


def _timeouts(made: Import, name: str, table: Table) -> None:
    """``request`` counts until the answer's first byte, and then between two pieces of it.

    As a limit of the whole it would cut streams that still move.  Of it and ``response_header`` the
    shorter one is that for the head.
    """
    upstream, policy = ("upstreams", name), ("resilience", name, "timeouts")
    theirs: Path = ("apis", name, "timeouts")
    heads: list[tuple[float, Path, Node]] = []
    for key, entry in table.entries.items():
        place = (*theirs, key)
        if key not in ("request", "response_header", "idle_connection", "flush_interval"):
            if not is_null(entry.value):
                made.ignore(entry, place)
            continue
        value = _duration(entry.value)
        if value is None:
            continue
        if key == "idle_connection":
            made.put((*upstream, "pool", "idle"), place, value)
        elif key == "flush_interval":
            made.put((*upstream, "flush_interval"), place, value)
        else:
            heads.append((_seconds(value), place, value))
        if key == "request":
            made.put((*policy, "idle"), place, value)
    if heads:
        _, place, value = min(heads, key=lambda head: head[0])
        made.put((*policy, "headers"), place, value)
        made.put((*upstream, "resilience"), theirs, Scalar(name, table.source, plain=False))


def _connection(made: Import, name: str, table: Table) -> None:
    """Idle connections kept: an upstream has one host, so that the smaller number holds."""
    theirs: Path = ("apis", name, "connection")
    found: list[tuple[float, Path, Node]] = []
    for key, entry in table.entries.items():
        if key not in ("max_idle_conns", "max_idle_conns_per_host"):
            if not is_null(entry.value):
                made.ignore(entry, (*theirs, key))
            continue
        text = entry.value.text if isinstance(entry.value, Scalar) else ""
        if is_null(entry.value) or text == "0":
            continue  # to that program none is no limit of its own
        number = float(text) if re.fullmatch("[0-9]{1,17}", text) else -1.0
        found.append((number, (*theirs, key), entry.value))
    if found:
        _, place, value = min(found, key=lambda one: one[0])
        made.put(("upstreams", name, "pool", "max_idle"), place, value)


def _duration(node: Node) -> Node | None:
    """*node* in our notation; ``None`` where it sets no limit: none is written 0 there.

    What is no duration stays as it is, to be told as such.
    """
    if is_null(node):
        return None
    if not isinstance(node, Scalar):
        return node
    if not _GO_DURATION.fullmatch(node.text):
        try:
            return node if parse_duration(node.text) else None
        except ValueError:
            return node
    parts = _GO_PART.findall(node.text)
    seconds = sum(float(number) * _GO_UNITS[unit] for number, unit in parts)
    if node.text.startswith("-") or not seconds:
        return None
    return Scalar(f"{seconds:.9f}", node.source, node.plain)


def _seconds(node: Node) -> float:
    """How long it is; one that is wrong comes first, so that it is told."""
    try:
        return parse_duration(node.text) if isinstance(node, Scalar) else -1.0
    except ValueError:
        return -1.0
