"""The ``config.yaml`` of the SillyTavern proxy middleware.

Known by its section ``target_proxy``.  It stands on the preset ``sillytavern``; what the file
lists obeys the file.  Two sections of later versions, whose forms vary, are taken over as far as
they are understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from llmproxyd.config.listening import listen_on
from llmproxyd.config.problems import Path
from llmproxyd.config.translation import Import, class_of, flag, is_null
from llmproxyd.config.tree import Entry, Listing, Node, Scalar, Source, Table, insert

UPSTREAM = "target"

_POLICY = ("resilience", "default")
_CHAT = "/chat/completions"
_CODES = ("retry_codes", "fail_codes", "conditional_retry_codes")
_WAITS = ("conditional_retry_max_attempts", "conditional_retry_delay_multiplier", "base_delay", "max_delay")
_LOGGED = ("enabled", "include_request_data", "include_response_data", "include_headers", "include_timing")
_ERRORS_LOGGED = ("enabled", "include_stack_traces", "include_request_context", "include_timing")
_KEYS = ("api_key", "apikey", "api-key", "key", "token", "bearer_token")
_RULES = ("rules", "list", "conditions", "patterns")
_WHOLE = re.compile(r"[1-5][0-9]{2}")


def translate(tree: Table) -> Import:
    """*tree* as a configuration of ours."""
    made = Import("sillytavern", tree.source)
    for name, entry in tree.entries.items():
        section = _SECTIONS.get(name)
        if name in _LATER:
            _LATER[name](made, entry)
        elif section is None:
            made.ignore(entry, (name,))
        elif (table := made.section(tree, name)) is not None:
            section(made, table)
        elif name == "target_proxy" and not made.problems:
            made.wrong(entry.value, ("target_proxy", "url"), _NO_URL)
    return made


def _target(made: Import, table: Table) -> None:
    """The one upstream, which everything goes to."""
    here = ("upstreams", UPSTREAM)
    section = ("target_proxy",)
    url = table.entries.get("url")
    if url is None or is_null(url.value) or (isinstance(url.value, Scalar) and not url.value.text):
        made.wrong(table if url is None else url.value, (*section, "url"), _NO_URL)
        return
    for name, entry in table.entries.items():
        theirs = (*section, name)
        if name == "url":
            _url(made, entry.value)
        elif is_null(entry.value):
            continue
        elif name == "headers":
            made.put((*here, "headers"), theirs, entry.value)
        elif name.lower() in _KEYS:
            made.put((*here, "api_key"), theirs, entry.value)
        elif name == "timeout":
            for stage in ("connect", "headers", "idle"):
                made.put(("timeouts", stage), theirs, entry.value)
        else:
            made.ignore(entry, theirs)
    source = url.source
    made.put((*here, "provider"), (*section, "url"), Scalar("openai", source))
    made.put(("server", "single_upstream"), (*section, "url"), Scalar(UPSTREAM, source))
    made.put(("default_upstream",), (*section, "url"), Scalar(UPSTREAM, source))


def _url(made: Import, value: Node) -> None:
    """The base is what stands before the endpoint, and clients may say ``/v1`` or leave it out.

    Where the URL names no endpoint it is a base already; then the client's ``/v1`` is taken off
    only if it would stand there twice.
    """
    theirs = ("target_proxy", "url")
    base = value
    ends = False
    if isinstance(value, Scalar):
        bare = value.text.rstrip("/")
        ends = bare.endswith(_CHAT) and bare != _CHAT
        base = Scalar(bare.removesuffix(_CHAT), value.source, value.plain) if ends else value
        ends = ends or bare.endswith("/v1")
    made.put(("upstreams", UPSTREAM, "base_url"), theirs, base)
    if ends:
        source = value.source
        entries: dict[str, Entry] = {}
        insert(entries, ("match",), Scalar("/v1/*", source))
        insert(entries, ("to",), Scalar("/*", source))
        rule: dict[str, Entry] = {}
        insert(rule, ("paths",), Listing((Table(entries, source),), source))
        made.put(("upstreams", UPSTREAM, "transform"), theirs, Listing((Table(rule, source),), source))


def _error_handling(made: Import, table: Table) -> None:
    known = (*_CODES, *_WAITS, "max_retries")
    made.copy(
        table,
        ("error_handling",),
        (*_POLICY, "retry"),
        known=known,
        flags=["conditional_retry_enabled"],
    )


def _server(made: Import, table: Table) -> None:
    """Host and port; without a host it listens for this machine alone."""
    given: dict[str, Scalar] = {}
    for name, entry in table.entries.items():
        theirs = ("server", name)
        if name in ("host", "port"):
            if isinstance(entry.value, Scalar) and not entry.value.is_null:
                given[name] = entry.value
            elif not is_null(entry.value):
                made.wrong(entry.value, theirs, f"found {class_of(entry.value)}; accepted: one value")
                return
        elif name == "debug":
            debug = flag(entry.value)
            if isinstance(debug, Scalar) and debug.text in ("true", "false"):
                level = "debug" if debug.text == "true" else "info"
                made.put(("logging", "level"), theirs, Scalar(level, debug.source))
            elif not is_null(debug):
                made.wrong(debug, theirs, f"found {class_of(debug)}; accepted: true or false")
        else:
            made.ignore(entry, theirs)
    if given:
        first = min((node.source for node in given.values()), key=lambda source: source.line or 0)
        host = given.get("host", Scalar("localhost", first))
        port = given.get("port", Scalar("8765", first))
        listen, problems = listen_on(host, port, ("server.host", "server.port"), first)
        made.problems += problems
        if listen is not None:
            made.put(("listen",), ("server",), listen)


def _logging(made: Import, table: Table) -> None:
    made.copy(table, ("logging",), ("logging",), known=["folder", "max_files"], flags=_LOGGED)


def _error_logging(made: Import, table: Table) -> None:
    known = ["folder", "max_file_size_mb", "max_files"]
    made.copy(table, ("error_logging",), ("error_logging",), known=known, flags=_ERRORS_LOGGED)


def _hard_stops(made: Import, section: Entry) -> None:
    """Each rule that has a pattern; what the user is told may be its description."""
    rules = []
    for number, (theirs, rule) in enumerate(_rules(made, section, "hard_stop_conditions")):
        ours: dict[str, Entry] = {}
        for name, entry in rule.entries.items():
            if is_null(entry.value):
                continue
            if name in ("pattern", "description", "user_message"):
                ours[name] = entry
            elif name == "preserve_original_response":
                ours[name] = Entry(entry.source, flag(entry.value))
            else:
                made.ignore(entry, (*theirs, name))
        if "user_message" not in ours:
            told = ours.get("description")
            ours["user_message"] = told or _text("The provider's answer ends this request.", rule.source)
        rules.append(Table(ours, rule.source))
        made.names[(*_POLICY, "hard_stop", number)] = theirs
    insert(made.entries, (*_POLICY, "hard_stop"), Listing(tuple(rules), section.source))


def _recategorized(made: Import, section: Entry) -> None:
    """Each rule that has a pattern and a new status."""
    ours_by_name = {"original_code": "original_status", "new_code": "new_status"}
    rules: list[Table] = []
    for theirs, rule in _rules(made, section, "response_parsing"):
        ours: dict[str, Entry] = {}
        for name, entry in rule.entries.items():
            key = ours_by_name.get(name, name)
            if is_null(entry.value):
                continue
            if key in ("pattern", "description") or (
                key in ("original_status", "new_status") and _is_status(entry.value)
            ):
                ours[key] = entry
            else:
                made.ignore(entry, (*theirs, name))
        if "new_status" not in ours:
            made.warn(rule.source, theirs, "ignored, as it has no new_status from 100 to 599")
            continue
        made.names[(*_POLICY, "recategorize", len(rules))] = theirs
        rules.append(Table(ours, rule.source))
    insert(made.entries, (*_POLICY, "recategorize"), Listing(tuple(rules), section.source))


def _rules(made: Import, section: Entry, key: str) -> Iterator[tuple[Path, Table]]:
    """The rules of one of the later sections that have a pattern, each with its place.

    A section that is switched off has none; one may be a mere list of rules.
    """
    if isinstance(section.value, Listing):
        yield from _with_pattern(made, section.value, (key,))
        return
    table = section.value
    if not isinstance(table, Table):
        if not is_null(table):
            made.ignore(section, (key,))
        return
    enabled = table.entries.get("enabled")
    off = flag(enabled.value) if enabled else None
    if isinstance(off, Scalar) and off.text == "false":
        return
    for name, entry in table.entries.items():
        if name in _RULES and isinstance(entry.value, Listing):
            yield from _with_pattern(made, entry.value, (key, name))
        elif name != "enabled" and not is_null(entry.value):
            made.ignore(entry, (key, name))


def _with_pattern(made: Import, listing: Listing, above: Path) -> Iterator[tuple[Path, Table]]:
    for number, rule in enumerate(listing.items):
        theirs = (*above, number)
        if isinstance(rule, Scalar) and not rule.is_null:
            yield theirs, Table({"pattern": Entry(rule.source, rule)}, rule.source)
        elif isinstance(rule, Table) and "pattern" in rule.entries:
            yield theirs, rule
        else:
            made.warn(rule.source, theirs, "ignored, as it has no pattern")


def _is_status(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and _WHOLE.fullmatch(node.text) is not None


def _text(text: str, source: Source) -> Entry:
    return Entry(source, Scalar(text, source, plain=False))


_NO_URL = 'missing; accepted: the URL of the target, such as "https://api.example.com/v1/chat/completions"'
_SECTIONS: dict[str, Callable[[Import, Table], None]] = {
    "target_proxy": _target,
    "error_handling": _error_handling,
    "server": _server,
    "logging": _logging,
    "error_logging": _error_logging,
}
_LATER: dict[str, Callable[[Import, Entry], None]] = {
    "hard_stop_conditions": _hard_stops,
    "response_parsing": _recategorized,
}
