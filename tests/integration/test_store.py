"""What every store does, in memory and in both databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from storebench import Kind, digest_of, full_project, full_token, project_named, token_named
from twisted.internet.defer import gatherResults

from llmproxyd.access.projects import Limits
from llmproxyd.redaction import Secret
from llmproxyd.store.interface import Changes, Conflict, Outdated, Store, UsageRow, Used
from llmproxyd.testing.store import MemoryStore

test = pytest_twisted.ensureDeferred
pytest_plugins = ["storefixtures"]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    kind: Kind = request.getfixturevalue(request.param)
    yield kind.opened()


@test
async def test_project_is_given_back_as_it_was_made(store: Store) -> None:
    await store.create_project(full_project())
    found = await store.project("proj_full")
    assert found == full_project()
    assert found is not None
    assert found.credentials["openai"].reveal() == "sk-real-key"


@test
async def test_token_is_given_back_as_it_was_made(store: Store) -> None:
    await store.create_project(full_project())
    await store.create_token(full_token())
    assert await store.token("tok_full") == full_token()
    assert await store.token_by_digest(full_token().digest) == full_token()


@test
async def test_what_is_not_there_is_none(store: Store) -> None:
    assert await store.project("proj_x") is None
    assert await store.token("tok_x") is None
    assert await store.token_by_digest(b"x" * 32) is None
    assert not await store.update_project(project_named())
    assert not await store.update_token(token_named())
    assert not await store.delete_project("proj_x")
    assert not await store.delete_token("tok_x")
    assert await store.projects() == []
    assert await store.tokens() == []


@pytest.mark.parametrize("id", ["\0", "\ud800", "x" * 10_000])
@test
async def test_ids_that_cannot_be_kept_are_not_there(store: Store, id: str) -> None:
    assert await store.project(id) is None
    assert await store.token(id) is None
    assert await store.tokens(id) == []
    assert not await store.delete_project(id)
    assert not await store.delete_token(id)


@test
async def test_projects_come_by_name(store: Store) -> None:
    for name in ("b", "a", "Z", "ä", "_"):
        await store.create_project(project_named(name, credentials={"openai": Secret(name)}))
    found = await store.projects()
    assert [one.name for one in found] == sorted(["b", "a", "Z", "ä", "_"])
    assert all(one.credentials["openai"].reveal() == one.name for one in found)


@test
async def test_tokens_come_newest_first_of_one_project_or_all(store: Store) -> None:
    await store.create_project(project_named("a"))
    await store.create_project(project_named("b"))
    for number, project in enumerate(["proj_a", "proj_b", "proj_a"]):
        await store.create_token(token_named(str(number), project, created=float(number)))
    assert [one.id for one in await store.tokens()] == ["tok_2", "tok_1", "tok_0"]
    assert [one.id for one in await store.tokens("proj_a")] == ["tok_2", "tok_0"]


@test
async def test_id_or_name_of_another_project_is_a_conflict(store: Store) -> None:
    await store.create_project(project_named("a"))
    with pytest.raises(Conflict):
        await store.create_project(project_named("b", id="proj_a"))
    with pytest.raises(Conflict):
        await store.create_project(project_named("a", id="proj_b"))
    await store.create_project(project_named("b"))
    with pytest.raises(Conflict):
        await store.update_project(project_named("a", id="proj_b"))
    assert [one.id for one in await store.projects()] == ["proj_a", "proj_b"]


@test
async def test_token_needs_its_project_and_a_digest_of_its_own(store: Store) -> None:
    with pytest.raises(Conflict):
        await store.create_token(token_named())
    await store.create_project(project_named())
    await store.create_token(token_named("a"))
    with pytest.raises(Conflict):
        await store.create_token(token_named("a", text="sk-other"))
    with pytest.raises(Conflict):
        await store.create_token(token_named("b", text="sk-a"))
    await store.create_token(token_named("b"))
    with pytest.raises(Conflict):
        await store.update_token(token_named("b", text="sk-a"))


@test
async def test_update_of_a_project_replaces_all_but_its_creation(store: Store) -> None:
    await store.create_project(full_project())
    after = project_named("new", id="proj_full", credentials={"xai": Secret("x")}, created=9.0, updated=9.0)
    assert await store.update_project(after)
    assert await store.project("proj_full") == replace(after, created=1.5)


@test
async def test_update_of_a_token_leaves_its_counts(store: Store) -> None:
    await store.create_project(full_project())
    await store.create_token(full_token())
    await store.count([Used("tok_full", "proj_full", "m", "2025-08-30", 7.5, 3, 10, 20, 0.5)])
    after = token_named("full", "elsewhere", text="sk-rotated", name="x", limits=Limits(5), requests=99)
    assert await store.update_token(after)
    found = await store.token_by_digest(digest_of("sk-rotated"))
    expected = replace(after, project="proj_full", created=3.25, requests=3, tokens=30, last_used=7.5)
    assert found == expected
    assert await store.token_by_digest(full_token().digest) is None


@test
async def test_deleting_a_project_takes_tokens_and_credentials_and_leaves_usage(store: Store) -> None:
    await store.create_project(full_project())
    await store.create_token(full_token())
    await store.count([Used("tok_full", "proj_full", "m", "2025-08-30", 7.5, 1)])
    assert await store.delete_project("proj_full")
    assert await store.token("tok_full") is None
    assert await store.projects() == []
    assert await store.usage("project", "2025-01-01") == [UsageRow("proj_full", 1, 0, 0, 0.0)]
    await store.create_project(project_named("full"))
    again = await store.project("proj_full")
    assert again is not None
    assert again.credentials == {}


@test
async def test_counts_add_up(store: Store) -> None:
    await store.create_project(project_named())
    await store.create_token(token_named())
    one = Used("tok_t", "proj_team", "m", "2025-08-30", 7.5, 2, 10, 20, 0.5)
    assert await store.count([one, replace(one, model="n", requests=1, last_used=6.0)]) == {"tok_t": 3}
    assert await store.count([replace(one, last_used=5.0), replace(one, token="tok_gone")]) == {"tok_t": 5}
    token = await store.token("tok_t")
    assert token is not None
    assert (token.requests, token.tokens, token.last_used) == (5, 90, 7.5)
    assert await store.count([]) == {}


@test
async def test_usage_is_told_by_project_token_and_model_since_a_day(store: Store) -> None:
    await store.count(
        [
            Used("t1", "p1", "m", "2025-08-29", 0.0, 100, 1, 1, 100.0),
            Used("t1", "p1", "m", "2025-08-30", 0.0, 1, 10, 20, 0.5),
            Used("t2", "p1", "n", "2025-08-30", 0.0, 2, 1, 2, 2.0),
            Used("t3", "p2", "m", "2025-08-31", 0.0, 4, 3, 4, 0.25),
        ]
    )
    assert await store.usage("project", "2025-08-30") == [
        UsageRow("p1", 3, 11, 22, 2.5),
        UsageRow("p2", 4, 3, 4, 0.25),
    ]
    assert [row.name for row in await store.usage("token", "2025-08-30")] == ["t2", "t1", "t3"]
    assert await store.usage("model", "2025-08-30") == [
        UsageRow("n", 2, 1, 2, 2.0),
        UsageRow("m", 5, 13, 24, 0.75),
    ]
    assert await store.usage("model", "2025-09-01") == []


@test
async def test_changes_are_told_in_turn_and_counting_is_none(store: Store) -> None:
    assert await store.changes(0) == Changes(0)
    await store.create_project(project_named())
    await store.create_token(token_named())
    first = await store.changes(0)
    assert (first.projects, first.tokens, first.all) == (("proj_team",), ("tok_t",), False)
    await store.count([Used("tok_t", "proj_team", "m", "2025-08-30", 7.5, 1)])
    assert await store.changes(first.last) == Changes(first.last)
    await store.update_token(token_named(name="x"))
    await store.update_token(token_named(name="y"))
    second = await store.changes(first.last)
    assert (second.projects, second.tokens) == ((), ("tok_t",))
    await store.delete_token("tok_t")
    await store.delete_project("proj_team")
    third = await store.changes(second.last)
    assert (third.projects, third.tokens) == (("proj_team",), ("tok_t",))
    assert await store.changes(third.last) == Changes(third.last)


@test
async def test_what_was_refused_is_no_change(store: Store) -> None:
    await store.create_project(project_named())
    last = (await store.changes(0)).last
    with pytest.raises(Conflict):
        await store.create_project(project_named())
    await store.update_project(project_named("other"))
    await store.delete_token("tok_x")
    assert await store.changes(last) == Changes(last)


@test
async def test_who_missed_too_much_or_asks_for_the_future_forgets_everything(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("llmproxyd.store.statements", "llmproxyd.testing.store"):
        monkeypatch.setattr(f"{module}.KEPT", 5)
    await store.create_project(project_named())
    for _ in range(9):
        await store.update_project(project_named())
    assert await store.changes(4) == Changes(10, all=True)
    assert await store.changes(5) == Changes(10, ("proj_team",))
    assert await store.changes(11) == Changes(10, all=True)


HOSTILE = [
    "'; DROP TABLE projects; --",
    '"quoted" and `so`',
    "%s ? :x $1 {0} \\",
    "naïve 日本語 🙂 \u202e\u0007",
    " ",
    "",
    "x" * 1000,
]


@pytest.mark.parametrize("name", HOSTILE)
@test
async def test_hostile_texts_are_kept_as_they_are(store: Store, name: str) -> None:
    made = project_named(name, id=name, credentials={name: Secret(name)})
    await store.create_project(made)
    assert await store.project(name) == made
    token = token_named("t", name, id=name, text=name, name=name)
    await store.create_token(token)
    assert await store.token(name) == token
    await store.count([Used(name, name, name, "2025-08-30", 1.0, 1)])
    assert [row.name for row in await store.usage("model", "2025-08-30")] == [name]
    assert (await store.changes(0)).projects == (name,)


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "a\0b"},
        {"name": "\ud800"},
        {"name": "x" * 10_000},
        {"id": "\0"},
        {"credentials": {"\0": Secret("")}},
        {"created": float("nan")},
        {"limits": Limits(1 << 63)},
    ],
)
@test
async def test_what_no_database_can_keep_is_refused_in_words(store: Store, bad: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"id": "p", "name": "p"}
    with pytest.raises(ValueError, match=r"must|large"):
        await store.create_project(project_named(**(fields | bad)))
    assert await store.projects() == []
    with pytest.raises(ValueError, match="must"):
        await store.count([Used("t", "p", "a\0b", "2025-08-30", 1.0, 1)])


@test
async def test_secret_of_any_text_is_kept(store: Store) -> None:
    keys = {"a": Secret("\0\ud800\n🙂"), "b": Secret("x" * 100_000)}
    await store.create_project(project_named(credentials=keys))
    found = await store.project("proj_team")
    assert found is not None
    assert found.credentials == keys


@test
async def test_rotation_says_how_many_credentials_there_are_and_leaves_them(store: Store) -> None:
    await store.create_project(full_project())
    await store.create_project(project_named(credentials={"openai": Secret("k")}))
    assert await store.rotate_key(Secret("another")) == 3
    assert await store.project("proj_full") == full_project()
    await store.update_project(project_named(credentials={"openai": Secret("l")}))
    found = await store.project("proj_team")
    assert found is not None
    assert found.credentials["openai"].reveal() == "l"
    with pytest.raises(ValueError, match=r"empty|line"):
        await store.rotate_key(Secret(""))


@test
async def test_many_at_once(store: Store) -> None:
    await store.create_project(project_named())
    names = [str(number) for number in range(60)]
    await gatherResults([store.create_token(token_named(name)) for name in names])
    found = await gatherResults([store.token_by_digest(digest_of(f"sk-{name}")) for name in names])
    assert [one.id for one in found] == [f"tok_{name}" for name in names]
    used = Used("tok_0", "proj_team", "m", "2025-08-30", 1.0, 1)
    await gatherResults([store.count([used]) for _ in range(60)])
    token = await store.token("tok_0")
    assert token is not None
    assert token.requests == 60


@test
async def test_change_made_of_what_is_not_there_any_more_is_outdated(store: Store) -> None:
    """Another host was quicker: what it did must not be undone by one that did not know of it."""
    project = replace(full_project(), active=True)
    await store.create_project(project)
    token = replace(full_token(), active=True)
    await store.create_token(token)
    await store.count([Used("tok_full", "proj_full", "m", "2025-08-30", 7.5, 3, 10, 20, 0.5)])
    assert await store.update_token(replace(token, active=False), token), "what was counted is no change"
    assert await store.update_project(replace(project, active=False), project)
    with pytest.raises(Outdated):
        await store.update_token(replace(token, name="x"), token)
    with pytest.raises(Outdated):
        await store.update_project(replace(project, credentials={}), project)
    found, of = await store.token("tok_full"), await store.project("proj_full")
    assert found is not None
    assert of is not None
    assert (found.active, found.name, of.active, of.credentials) == (
        False,
        token.name,
        False,
        project.credentials,
    )
    await store.delete_project("proj_full")
    assert not await store.update_token(token, token)
    assert not await store.update_project(project, project)
