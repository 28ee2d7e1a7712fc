"""What is said at start: where to point clients, what is in force, what to beware of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmproxyd.providers.base import Provider
from llmproxyd.resilience.timeouts import Timeouts
from llmproxyd.units import format_duration

WIDTH = 60
GOOSE = (
    "OPENAI_HOST",
    "ANTHROPIC_HOST",
    "GOOGLE_HOST",
    "OPENROUTER_HOST",
    "TETRATE_HOST",
    "DATABRICKS_HOST",
)
SDKS = ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL")


@dataclass(frozen=True, slots=True)
class Place:
    """An upstream, as far as it is shown.

    :param keyed: a key for it is stored.
    :param absorbs: what is done about its failures, in a few words.
    """

    name: str
    provider: str
    base_url: str
    keyed: bool
    absorbs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the banner tells.

    :param addresses: URLs on which we listen; the first is the one shown to clients.
    :param sandbox: answers come from the built-in stand-in.
    :param preset: the name of the one in force.
    :param single: the upstream that everything goes to, if there is such a one.
    :param prefix: begins every path that is served.
    """

    version: str
    addresses: Sequence[str]
    state_folder: str
    source: str | None
    upstreams: Sequence[Place]
    default: str
    providers: Iterable[Provider]
    timeouts: Timeouts
    sandbox: bool
    notes: Sequence[str]
    warnings: Sequence[str]
    symbols: bool
    preset: str | None = None
    single: str | None = None
    prefix: str = ""


def variables(base_url: str, providers: Iterable[Provider], *, sandbox: bool) -> dict[str, str]:
    """The environment that points clients at *base_url*.

    With the sandbox, dummy keys too: SDKs refuse to start without one.
    """
    paths: dict[str, str] = {}
    keys: list[str] = []
    for provider in providers:
        paths |= provider.hosts
        if not provider.hosts.keys().isdisjoint(GOOSE + SDKS):
            keys += provider.keys[:1]
    found = {name: base_url + paths[name] for name in (*GOOSE, *SDKS) if name in paths}
    if sandbox:
        found |= dict.fromkeys(keys, "sandbox")
    return found


def banner(facts: Facts) -> str:
    """The whole banner, as lines of text."""
    rule = "=" * WIDTH
    sign = "🔧 " if facts.symbols else ""
    lines = [rule, f"{sign}llmproxyd {facts.version}" + (" (sandbox)" if facts.sandbox else ""), rule]
    lines += ["Listening on " + ", ".join(facts.addresses)]
    lines += [f"Configuration: {_source(facts)}", f"State folder: {facts.state_folder}", ""]
    lines += _exports(facts)
    lines += _upstreams(facts)
    timeouts = facts.timeouts
    lines.append(
        f"Timeouts: connect {format_duration(timeouts.connect)}, headers "
        f"{format_duration(timeouts.headers)}, idle {format_duration(timeouts.idle)}{_retries(facts)}"
    )
    lines += facts.notes
    for warning in facts.warnings:
        lines.append(f"{'⚠️  ' if facts.symbols else ''}WARNING: {warning}")
    lines.append(rule)
    return "\n".join(lines) + "\n"


def _retries(facts: Facts) -> str:
    """That there are none; where there are, each upstream says so itself."""
    if not any(place.absorbs for place in facts.upstreams):
        return "; retries: none"
    if facts.sandbox:
        told = facts.upstreams[0].absorbs
        return "; " + ", ".join(told) if told else ""
    return ""


def _source(facts: Facts) -> str:
    named = [] if facts.source is None else [facts.source]
    named += [] if facts.preset is None else [f"preset {facts.preset}"]
    return ", ".join(named) or "defaults"


def _to_single(facts: Facts, place: Place) -> list[str]:
    """Where clients are pointed when all that they ask goes to one upstream."""
    hosts = next((one.hosts for one in facts.providers if one.name == place.provider), {})
    paths = {name: hosts[name] for name in SDKS if name in hosts} or {"OPENAI_BASE_URL": "/v1"}
    lines = [f"Everything goes to {place.name}. To use it, set:"]
    for name, path in paths.items():
        # A base that has the version already takes paths without it.
        path = "" if path and place.base_url.endswith(path) else path
        lines.append(f"  export {name}={facts.addresses[0]}{facts.prefix}{path}")
    return [*lines, ""]


def _exports(facts: Facts) -> list[str]:
    for place in facts.upstreams:
        if place.name == facts.single and not facts.sandbox:
            return _to_single(facts, place)
    found = variables(facts.addresses[0] + facts.prefix, facts.providers, sandbox=facts.sandbox)
    lines = ["To use with goose, set these environment variables:"]
    lines += [f"  export {name}={value}" for name, value in found.items() if name in GOOSE]
    lines += ["", "To use with the OpenAI, Anthropic and Google SDKs:"]
    lines += [f"  export {name}={value}" for name, value in found.items() if name in SDKS]
    dummies = [name for name in found if name not in GOOSE and name not in SDKS]
    if dummies:
        lines += ["", "Dummy keys for the sandbox (any will do):"]
        lines.append("  export " + " ".join(f"{name}={found[name]}" for name in dummies))
    return [*lines, ""]


def _upstreams(facts: Facts) -> list[str]:
    if facts.sandbox:
        address = facts.upstreams[0].base_url.rpartition("/")[0]
        names = ", ".join(place.name for place in facts.upstreams)
        return [f"Upstreams: all answered by the sandbox at {address}", f"  {names}", ""]
    places = facts.upstreams
    lines = ["Upstreams:"]
    if facts.single is not None:
        places = [place for place in places if place.name == facts.single]
        lines = ["Upstreams (others with /to/NAME/):"]
    width = max(len(place.name) for place in places)
    for place in places:
        notes = ["default"] if place.name == facts.default else []
        if place.provider != place.name:
            notes.append(f"speaks {place.provider}")
        if place.keyed:
            notes.append("with a stored key")
        notes += place.absorbs
        suffix = f"  ({', '.join(notes)})" if notes else ""
        lines.append(f"  {place.name:<{width}}  {place.base_url}{suffix}")
    return [*lines, ""]
