"""A token is taken wherever an SDK puts a key; the upstream sees the project's credential alone."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import pytest_twisted
from doorbench import (
    BODY,
    CANARY,
    CHAT,
    GEMINI,
    MESSAGES,
    MODELS,
    DoorBench,
    bearer,
    chat,
    check_refused,
    denied,
    key_for,
    models,
    nowhere,
)
from twisted.internet.defer import ensureDeferred
from wireclient import get, request

from llmproxyd.testing.upstream import FakeUpstream

test = pytest_twisted.ensureDeferred


@pytest.fixture
def door(upstream: FakeUpstream) -> Iterator[DoorBench]:
    made = DoorBench(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


def basic(login: str) -> str:
    return b64encode(login.encode()).decode()


PLACES = [
    "Authorization: Bearer {token}",
    "authorization: bearer {token}",
    "AUTHORIZATION:BEARER   {token}  ",
    "Authorization: {token}",
    "Authorization: Basic {user}",
    "Authorization: basic {password}",
    "x-api-key: {token}",
    "X-API-Key: {token}",
    "x-goog-api-key: {token}",
    "X-Goog-Api-Key: {token}",
    "api-key: {token}",
    "?key={token}",
    "?alt=sse&key={token}&x=1",
    "?key={coded}",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", [CHAT, MESSAGES, GEMINI])
@test
async def test_token_is_accepted_in_every_place_and_goes_no_further(
    door: DoorBench, upstream: FakeUpstream, place: str, target: bytes
) -> None:
    proxy = await door.gateway()
    token = await door.token()
    put = place.format(
        token=token,
        user=basic(f"{token}:"),
        password=basic(f"me:{token}"),
        coded=quote(token).replace("s", "%73"),
    ).encode()
    fields = () if put.startswith(b"?") else (put,)
    where = target + put if put.startswith(b"?") else target
    client = await door.client(proxy)
    got = await client.ask(request(where, *fields, b"Content-Type: application/json", body=BODY))
    assert got.status == 200, got.raw
    (sent,) = upstream.requests
    nowhere(sent, token)
    nowhere(sent, quote(token).replace("s", "%73"))
    nowhere(sent, basic(f"{token}:"))
    assert sent.raw.count(CANARY.encode()) == 1
    assert sent.body == BODY
    assert sent.target == target + (b"?alt=sse&x=1" if b"alt=sse" in put else b"")


WAYS = {
    "openai": (b"Authorization", b"Bearer "),
    "anthropic": (b"x-api-key", b""),
    "google": (b"x-goog-api-key", b""),
    "azure": (b"api-key", b""),
    "bedrock": (b"Authorization", b"Bearer "),
    "ollama": (b"Authorization", b"Bearer "),
    "databricks": (b"Authorization", b"Bearer "),
    "openrouter": (b"Authorization", b"Bearer "),
    "mistral": (b"Authorization", b"Bearer "),
}

NAMES = {b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"}


@pytest.mark.parametrize("name", WAYS)
@test
async def test_upstream_gets_the_projects_credential_in_its_providers_way_alone(
    door: DoorBench, upstream: FakeUpstream, name: str
) -> None:
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    # A client that fills every place there is.
    everywhere = [
        bearer(token),
        *(b"%s: %s" % (field, token.encode()) for field in sorted(NAMES - {b"authorization"})),
    ]
    where = b"/to/%s/v1/some/path?key=%s&a=b" % (name.encode(), token.encode())
    got = await client.ask(request(where, *everywhere, body=b"{}"))
    assert got.status == 200, got.raw
    (sent,) = upstream.requests
    field, prefix = WAYS[name]
    found = [(key.lower(), value) for key, value in sent.headers if key.lower() in NAMES]
    assert found == [(field.lower(), prefix + key_for(name).encode())]
    assert sent.target == b"/v1/some/path?a=b"
    nowhere(sent, token)


HIDDEN = [
    "k%65y={token}",
    "%6Bey={token}",
    "k%2565y={token}",
    "KEY={token}",
    "key[]={token}",
    "a=1;key={token}",
    "access_token={token}",
    "anything={token}",
    "anything={coded}",
    "{token}",
    "{token}=1",
    "a=x+{token}",
]


@pytest.mark.parametrize("argument", HIDDEN)
@test
async def test_token_written_into_the_query_in_any_spelling_stays_here(
    door: DoorBench, upstream: FakeUpstream, argument: str
) -> None:
    proxy = await door.gateway()
    token = await door.token()
    coded = "".join(f"%{ord(char):02X}" for char in token)
    text = argument.format(token=token, coded=coded)
    client = await door.client(proxy)
    got = await client.ask(get(MODELS + b"?a%2f=%62&" + text.encode() + b"&z", bearer(token)))
    assert got.status == 200, got.raw
    (sent,) = upstream.requests
    nowhere(sent, token)
    nowhere(sent, coded)
    assert sent.target == MODELS + b"?a%2f=%62&z"


@pytest.mark.parametrize("name", ["k%65y", "access_token", "oauth_token", "API_KEY", "subscription-key"])
@test
async def test_credential_of_the_clients_own_is_not_used_beside_the_projects(
    door: DoorBench, upstream: FakeUpstream, name: str
) -> None:
    """A project's empty credential must not be filled up with one that nobody gave it."""
    proxy = await door.gateway()
    token = await door.token(await door.project(credentials={"google": ""}))
    client = await door.client(proxy)
    where = GEMINI + b"?" + name.encode() + b"=AIza-own-key&$alt=json"
    got = await client.ask(request(where, bearer(token), body=b"{}"))
    assert got.status == 200, got.raw
    (sent,) = upstream.requests
    nowhere(sent, "AIza-own-key")
    assert sent.target == GEMINI + b"?$alt=json"


@pytest.mark.parametrize(
    "field", ["X-My-Key: {token}", "Referer: http://a/?k={token}", "Ocp-Apim-Subscription-Key: {token}"]
)
@test
async def test_field_that_holds_the_token_stays_here_and_others_pass(
    door: DoorBench, upstream: FakeUpstream, field: str
) -> None:
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    got = await client.ask(models(token, field.format(token=token).encode(), b"X-Other: 1"))
    assert got.status == 200
    (sent,) = upstream.requests
    nowhere(sent, token)
    assert sent.all(b"x-other") == [b"1"]


@test
async def test_a_dummy_credential_takes_no_field_along(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    fields = [b"x-api-key: none", b"X-Mode: none", b"OpenAI-Beta: nonesuch"]
    got = await client.ask(chat(token, *fields, target=b"/to/openai" + CHAT))
    assert got.status == 200
    (sent,) = upstream.requests
    assert sent.all(b"x-mode") == [b"none"]
    assert sent.all(b"openai-beta") == [b"nonesuch"]
    assert sent.all(b"x-api-key") == []


@test
async def test_cookies_and_everything_else_pass_as_they_came(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    kept = [b"Cookie: a=b; c=d", b"X-Twice: 1", b"x-twice: 2", b"OpenAI-Organization: org-1", b"Accept: */*"]
    await client.ask(chat(token, *kept, target=CHAT + b"?x=%2F&&y"))
    (sent,) = upstream.requests
    lines = sent.raw.split(b"\r\n\r\n")[0].split(b"\r\n")
    assert [line for line in lines if line in kept] == kept
    assert sent.target == CHAT + b"?x=%2F&&y"


@test
async def test_empty_credential_lets_requests_go_there_with_none(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    token = await door.token(await door.project(credentials={"ollama": ""}))
    client = await door.client(proxy)
    got = await client.ask(request(b"/to/ollama/api/chat", bearer(token), b"api-key: own-0123456789abc"))
    assert got.status == 200
    (sent,) = upstream.requests
    assert not NAMES & {key.lower() for key, _ in sent.headers}
    nowhere(sent, token)


@test
async def test_configured_credential_gives_way_to_the_projects(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    """Two credentials in one field would leave the choice to the upstream."""
    headers = {"authorization": "Bearer configured", "x-team": "a"}
    proxy = await door.gateway(upstreams={"openai": {"headers": headers}})
    token = await door.token()
    client = await door.client(proxy)
    await client.ask(chat(token))
    (sent,) = upstream.requests
    assert sent.all(b"authorization") == [b"Bearer " + key_for("openai").encode()]
    assert sent.all(b"x-team") == [b"a"]


@test
async def test_stored_key_of_the_configuration_is_never_used_instead(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway(upstreams={"openai": {"api_key": "sk-configured"}})
    project = await door.project(credentials={"anthropic": key_for("anthropic")})
    token, empty = await door.token(project), await door.token(await door.project(credentials={"openai": ""}))
    client = await door.client(proxy)
    check_refused(await client.ask(chat(token)), 403, "upstream_not_allowed")
    assert not upstream.requests
    assert (await client.ask(chat(empty))).status == 200
    nowhere(upstream.requests[0], "sk-configured")


@test
async def test_same_token_twice_is_one_and_two_tokens_are_refused(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    one, other = await door.token(), await door.token()
    client = await door.client(proxy)
    assert (await client.ask(models(one, b"x-api-key: " + one.encode()))).status == 200
    got = await client.ask(models(one, b"x-api-key: " + other.encode()))
    check_refused(got, 401, "token_ambiguous")
    assert got.get(b"www-authenticate") == b'Bearer realm="llmproxyd"'
    got = await client.ask(models(one, bearer(other)))
    check_refused(got, 401, "token_ambiguous")
    got = await client.ask(models(one, target=MODELS + b"?key=" + other.encode()))
    check_refused(got, 401, "token_ambiguous")
    assert len(upstream.requests) == 1
    assert [one.code for one in denied(proxy)] == ["token_ambiguous"] * 3


@test
async def test_token_beside_a_dummy_counts(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    got = await client.ask(get(MODELS, b"Authorization: Bearer EMPTY", b"x-api-key: " + token.encode()))
    assert got.status == 200
    nowhere(upstream.requests[0], "EMPTY")


@test
async def test_a_token_does_not_choose_the_upstream_by_its_form(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    """Tokens look like an OpenAI key, and none of them may lead a request astray."""
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    for target, name in [(CHAT, "openai"), (MESSAGES, "anthropic"), (GEMINI, "google")]:
        await client.ask(request(target, bearer(token), body=b"{}"))
        assert proxy.finished[-1].upstream == name


@test
async def test_token_in_a_trailer_goes_nowhere(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    head = request(CHAT, bearer(token), b"Transfer-Encoding: chunked", b"Trailer: x-api-key", body=None)
    got = await client.ask(head + b"2\r\n{}\r\n0\r\nx-api-key: " + token.encode() + b"\r\n\r\n")
    assert got.status == 200
    await client.ask(chat(token))
    for sent in upstream.requests:
        nowhere(sent, token)


@test
async def test_tokens_that_take_turns_on_one_connection_keep_apart(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    """Nothing that was worked out for one head may be used for another."""
    proxy = await door.gateway()
    projects = [await door.project(credentials={"openai": f"credential-{at}"}) for at in range(3)]
    tokens = [await door.token(project) for project in projects]
    client = await door.client(proxy)
    turns = [0, 0, 1, 0, 2, 1, 1, 2, 0]
    client.send(b"".join(chat(tokens[at], body=b"x" * size) for size, at in enumerate(turns, 1)))
    for _ in turns:
        assert (await client.answer()).status == 200
    told = [sent.all(b"authorization") for sent in upstream.requests]
    assert told == [[b"Bearer credential-%d" % at] for at in turns]
    assert [one.project for one in proxy.finished] == [projects[at].id for at in turns]
    client.send(chat(tokens[0]) + chat(None) + chat(tokens[0]))
    assert [(await client.answer()).status for _ in range(3)] == [200, 401, 200]
