"""Which upstream, which dialect, which target: the four ways, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.errors import Refused
from llmproxyd.model import Request
from llmproxyd.pipeline.route import Router, Rule, host_name
from llmproxyd.providers.base import EndpointKind, Provider
from llmproxyd.providers.registry import built_in

PROVIDERS = {provider.name: provider for provider in built_in()}
GLOBAL = [name for name, provider in PROVIDERS.items() if provider.base_url is not None]


@dataclass(frozen=True)
class Place:
    name: str
    provider: Provider


def router(
    *rules: Rule,
    names: Sequence[str] = GLOBAL,
    default: str = "openai",
    single: str | None = None,
    **further: str,
) -> Router[Place]:
    """A router over the upstreams *names*, and *further* ones by the provider that each speaks."""
    places = {name: Place(name, PROVIDERS[name]) for name in names}
    places |= {name: Place(name, PROVIDERS[speaks]) for name, speaks in further.items()}
    return Router(places, PROVIDERS, default=default, routes=rules, single=single)


def request(line: str, *fields: str) -> Request:
    method, _, target = line.partition(" ")
    headers = [(name.encode(), value.encode()) for name, _, value in (one.partition(": ") for one in fields)]
    return Request(method.encode(), target.encode(), headers)


ANTHROPIC = ("anthropic-version: 2023-06-01", "x-api-key: sk-ant-0")
OPENAI = ("Authorization: Bearer sk-proj-0",)
STRIPPED_DATABRICKS = Rule(upstream="databricks", path_prefix=b"/team", strip=True)
CHAT = "POST /v1/chat/completions"
MESSAGES = "POST /v1/messages"


def way(found: Router[Place], line: str, *fields: str) -> tuple[str, str, str]:
    """Upstream, dialect and target."""
    route = found.route(request(line, *fields))
    return route.upstream.name, route.dialect.name, route.target.decode()


def refused(found: Router[Place], line: str, *fields: str) -> Refused:
    with pytest.raises(Refused) as caught:
        found.route(request(line, *fields))
    return caught.value


# 1. /to/NAME/


TO = [
    ("/to/openai/v1/chat/completions", "openai", "/v1/chat/completions"),
    ("/to/openai/v1/chat/completions?a=%2F", "openai", "/v1/chat/completions?a=%2F"),
    ("/to/mine/v1//x%2Fy;z/../w?q=%3A&&", "mine", "/v1//x%2Fy;z/../w?q=%3A&&"),
    ("/to/openai", "openai", "/"),
    ("/to/openai/", "openai", "/"),
    ("/to/openai?x=1", "openai", "/?x=1"),
    ("/to/openai?x=/y", "openai", "/?x=/y"),
    ("/to/openai//v1/models", "openai", "//v1/models"),
    ("/to/mine/health", "mine", "/health"),
    ("/to/mine/to/openai/v1", "mine", "/to/openai/v1"),
]


@pytest.mark.parametrize(("target", "upstream", "left"), TO)
def test_named_upstream_is_picked_and_its_name_stripped(target: str, upstream: str, left: str) -> None:
    name, _, rest = way(router(mine="vllm"), f"POST {target}", *OPENAI)
    assert (name, rest) == (upstream, left)


def test_named_upstream_wins_over_everything_else() -> None:
    found = router(Rule(upstream="groq", path_prefix=b"/"), single="mistral")
    assert way(found, "POST /to/anthropic/v1/messages", *OPENAI)[0] == "anthropic"


def test_path_after_the_name_decides_the_endpoint() -> None:
    route = router().route(request("POST /to/tetrate/v1/chat/completions", *OPENAI))
    assert route.dialect.name == "tetrate"
    assert route.operation == "chat"
    assert route.kind is EndpointKind.INFERENCE


def test_path_is_recognised_as_if_nothing_had_stood_before_it() -> None:
    found = router(STRIPPED_DATABRICKS, names=[*GLOBAL, "databricks"])
    for prefix in ("/to/databricks", "/team"):
        assert found.route(request(f"POST {prefix}/oidc/v1/token")).kind is EndpointKind.AUTH
        assert found.route(request(f"POST /to/openai{prefix}/oidc/v1/token")).kind is EndpointKind.METADATA


@pytest.mark.parametrize(
    "target", ["/to/nope/v1/models", "/to/", "/to//v1", "/to/OpenAI/v1", "/to/open%61i/v1", "/to/\xff"]
)
def test_unknown_name_is_a_404_that_names_the_known_ones(target: str) -> None:
    error = refused(router(names=["openai", "groq"], mine="vllm"), f"GET {target}")
    assert (error.status, error.code) == (404, "upstream_unknown")
    assert error.message == "There is no such upstream. Known: groq, mine, openai."


@pytest.mark.parametrize("target", ["/to", "/TO/openai/x", "/tox/openai", "//to/openai"])
def test_what_only_looks_like_a_selector_is_a_path(target: str) -> None:
    assert way(router(), f"GET {target}") == ("openai", "openai", target)


# 2. routes


PREFIX = Rule(upstream="groq", path_prefix=b"/team")
STRIPPED = Rule(upstream="groq", path_prefix=b"/team/", strip=True)
ROUTES = [
    (PREFIX, "/team/v1/models?x", "groq", "/team/v1/models?x"),
    (PREFIX, "/team", "groq", "/team"),
    (PREFIX, "/teams/v1", "openai", "/teams/v1"),
    (PREFIX, "/x/team", "openai", "/x/team"),
    (STRIPPED, "/team/v1/models?x=/team", "groq", "/v1/models?x=/team"),
    (STRIPPED, "/team", "groq", "/"),
    (STRIPPED, "/team?x", "groq", "/?x"),
    (STRIPPED, "/team//v1", "groq", "//v1"),
    (STRIPPED, "/team/v1%2Fa;b", "groq", "/v1%2Fa;b"),
    (Rule(upstream="groq", path_prefix=b"/", strip=True), "/v1/x", "groq", "/v1/x"),
]


@pytest.mark.parametrize(("rule", "target", "upstream", "left"), ROUTES)
def test_route_by_path(rule: Rule, target: str, upstream: str, left: str) -> None:
    name, _, rest = way(router(rule), f"GET {target}")
    assert (name, rest) == (upstream, left)


HOSTS = [
    ("ai.example", True),
    ("AI.Example:8888", True),
    ("ai.example.", False),
    ("x.ai.example", False),
    ("", False),
]


@pytest.mark.parametrize(("host", "taken"), HOSTS)
def test_route_by_host(host: str, taken: bool) -> None:
    found = router(Rule(upstream="groq", host=b"AI.example"))
    assert (way(found, "GET /v1/models", f"Host: {host}")[0] == "groq") == taken


HEADERS = [
    ((b"x-team", b"blue"), "X-Team: blue", True),
    ((b"x-team", b"blue"), "X-Team: Blue", False),
    ((b"x-team", None), "x-team: ", True),
    ((b"x-team", None), "x-teams: a", False),
]


@pytest.mark.parametrize(("header", "field", "taken"), HEADERS)
def test_route_by_header(header: tuple[bytes, bytes | None], field: str, taken: bool) -> None:
    assert (way(router(Rule(upstream="groq", header=header)), "GET /v1/models", field)[0] == "groq") == taken


def test_first_route_that_matches_wins_and_routes_go_before_the_single_upstream() -> None:
    rules = (
        Rule(upstream="groq", host=b"a"),
        Rule(upstream="xai", path_prefix=b"/v1"),
        Rule(upstream="mistral", path_prefix=b"/"),
    )
    found = router(*rules, single="anthropic")
    assert way(found, "GET /v1/models", "Host: a")[0] == "groq"
    assert way(found, "GET /v1/models", "Host: b")[0] == "xai"
    assert way(found, "GET /x")[0] == "mistral"
    assert way(router(rules[0], single="anthropic"), "GET /x", "Host: b")[0] == "anthropic"


# 3. single upstream


def test_single_upstream_takes_everything_as_it_is() -> None:
    found = router(single="openrouter")
    for line, fields in (
        (CHAT, OPENAI),
        (MESSAGES, ANTHROPIC),
        ("GET /nowhere?x", ()),
        ("POST /model/m/converse", ()),
    ):
        name, _, target = way(found, line, *fields)
        assert (name, target) == ("openrouter", line.partition(" ")[2])


def test_single_upstream_speaks_the_dialect_that_the_wire_shows() -> None:
    found = router(single="mine", mine="venice")
    assert way(found, MESSAGES, *ANTHROPIC)[1] == "anthropic"
    assert way(found, CHAT, *OPENAI)[1] == "venice"
    assert way(found, "GET /nowhere", *ANTHROPIC)[1] == "venice"


# 4. detection


DETECTED = [
    (CHAT, OPENAI, "openai"),
    (MESSAGES, ANTHROPIC, "anthropic"),
    ("POST /v1beta/models/gemini-2.5-flash:generateContent", ("x-goog-api-key: k",), "google"),
    ("POST /v1beta/models/gemini-2.5-flash:streamGenerateContent?key=k", (), "google"),
    ("POST /api/v1/chat/completions", OPENAI, "openrouter"),
    (CHAT, ("Authorization: Bearer gsk_0",), "groq"),
]


@pytest.mark.parametrize(("line", "fields", "name"), DETECTED)
def test_detected_provider_is_served_by_the_upstream_of_its_name(
    line: str, fields: tuple[str, ...], name: str
) -> None:
    assert way(router(), line, *fields) == (name, name, line.partition(" ")[2])


@pytest.mark.parametrize("default", ["openai", "anthropic", "mistral"])
def test_nothing_recognised_goes_to_the_default(default: str) -> None:
    assert way(router(default=default), "GET /nowhere?x=1") == (default, default, "/nowhere?x=1")


def test_default_serves_what_it_speaks_before_another_one_that_does() -> None:
    found = router(names=["openai"], default="mine", mine="anthropic", other="anthropic")
    assert way(found, MESSAGES, *ANTHROPIC)[0] == "mine"


def test_upstream_of_the_name_goes_before_the_default_that_speaks_it() -> None:
    found = router(names=["openai", "anthropic"], default="mine", mine="anthropic")
    assert way(found, MESSAGES, *ANTHROPIC)[0] == "anthropic"


def test_only_one_that_speaks_it_is_taken() -> None:
    assert way(router(names=["openai"], mine="anthropic"), MESSAGES, *ANTHROPIC)[0] == "mine"


def test_nothing_configured_is_a_404_that_says_which_key_to_set() -> None:
    error = refused(router(names=["openai"]), MESSAGES, *ANTHROPIC)
    assert (error.status, error.code) == (404, "upstream_not_configured")
    assert "speaks the API of Anthropic" in error.message
    assert "set upstreams.anthropic.base_url" in error.message


def test_databricks_without_a_workspace_names_its_variable() -> None:
    error = refused(router(), "POST /serving-endpoints/m/invocations", "Authorization: Bearer dapi0")
    assert error.code == "upstream_not_configured"
    assert "set upstreams.databricks.base_url or DATABRICKS_REAL_HOST." in error.message


def test_several_that_speak_it_must_be_told_apart() -> None:
    error = refused(router(names=["openai"], one="anthropic", two="anthropic"), MESSAGES, *ANTHROPIC)
    assert error.code == "upstream_not_configured"
    assert "choose one with /to/NAME/: one, two" in error.message


# Dialect.


SPEAKS = [
    ("POST /to/openrouter/api/v1/messages", "openrouter", "anthropic"),
    ("POST /to/google/v1beta/openai/chat/completions", "google", "openai"),
    ("POST /to/deepseek/anthropic/v1/messages", "deepseek", "anthropic"),
]


@pytest.mark.parametrize(("line", "upstream", "dialect"), SPEAKS)
def test_endpoint_that_speaks_another_api_has_its_dialect(line: str, upstream: str, dialect: str) -> None:
    route = router().route(request(line, *OPENAI))
    assert (route.upstream.name, route.dialect.name) == (upstream, dialect)
    assert route.kind is EndpointKind.INFERENCE


def test_path_that_is_in_nobodys_list_is_metadata() -> None:
    route = router().route(request("GET /nowhere"))
    assert route.endpoint is None
    assert route.kind is EndpointKind.METADATA
    assert route.operation == "unknown"


@pytest.mark.parametrize(
    ("line", "fields", "dialect"),
    [
        ("POST /to/nope/v1/messages", ANTHROPIC, "anthropic"),
        ("POST /to/nope/v1beta/models/m:generateContent", (), "google"),
        ("POST /to/nope/v1/chat/completions", OPENAI, "openai"),
        ("GET /to/nope", (), "openai"),
        (MESSAGES, ANTHROPIC, "anthropic"),
        ("GET *", (), "openai"),
    ],
)
def test_refusal_is_worded_as_the_client_expects(line: str, fields: tuple[str, ...], dialect: str) -> None:
    assert router(names=["openai"]).dialect_of(request(line, *fields)).name == dialect


def test_outside_provider_may_stand_behind_a_dialect() -> None:
    own = replace(PROVIDERS["openai"], name="own", signals=())
    found = Router({"own": Place("own", own)}, {**PROVIDERS, "own": own}, default="own")
    assert way(found, CHAT)[:2] == ("own", "own")


# Targets.

TARGETS = st.lists(
    st.sampled_from(["/", "//", "%2F", "%3A", ";", "..", "v1", "models", "?", "&", "=", "#", "+", "\x80"])
).map(lambda parts: "/" + "".join(parts))


@settings(deadline=None)
@given(TARGETS)
def test_raw_target_is_never_changed_but_for_what_selected_it(target: str) -> None:
    raw = target.encode("latin-1")
    found = router(STRIPPED)
    for prefix in (b"/to/openai", b"/team"):
        asked = Request(b"POST", prefix + raw, ())
        assert found.route(asked).target == raw
    plain = Request(b"POST", b"/x" + raw, ())
    assert found.route(plain).target is plain.target


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("LocalHost:8888", b"localhost"),
        ("[::1]:8888", b"[::1]"),
        ("[::1]", b"[::1]"),
        ("a", b"a"),
        (" A :1", b"a "),
        ("", b""),
    ],
)
def test_host_name_is_without_port_and_case(host: str, name: bytes) -> None:
    assert host_name(request("GET /", f"Host: {host}")).strip() == name.strip()
    assert host_name(request("GET /")) == b""
