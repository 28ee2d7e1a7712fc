"""The admin API: what its operations do, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from adminbench import KEY, AdminBench
from twisted.internet.defer import ensureDeferred

from llmproxyd.access.tokens import digest_of
from llmproxyd.cache.interface import Purge


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[AdminBench]:
    made = pytest_twisted.blockon(ensureDeferred(AdminBench(tmp_path).listen()))
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


@pytest_twisted.ensureDeferred
async def test_project_lives_its_life(admin: AdminBench) -> None:
    made = await admin.ask(
        "POST", "/projects", {"name": "team a", "credentials": {"openai": KEY, "my-vllm": ""}}
    )
    assert made.status == 201, made
    assert made.json["credentials"] == {"openai": "[set]", "my-vllm": "[none]"}
    assert made.json["active"] is True
    assert made.json["created"] == "2025-06-15T15:06:40Z"
    id = made.json["id"]
    assert (await admin.ask("GET", f"/projects/{id}")).json == made.json
    assert (await admin.ask("GET", "/projects/team%20a")).json == made.json
    changed = await admin.ask("PATCH", "/projects/team%20a", {"active": False, "limits": {"rpm": 10}})
    assert changed.json["active"] is False
    assert changed.json["limits"] == {"rpm": 10, "tpm": None}
    assert changed.json["credentials"] == made.json["credentials"]
    removed = await admin.ask("PATCH", f"/projects/{id}", {"credentials": {"my-vllm": None}})
    assert removed.json["credentials"] == {"openai": "[set]"}
    listed = await admin.ask("GET", "/projects")
    assert listed.json == {"projects": [removed.json], "next": None}
    gone = await admin.ask("DELETE", f"/projects/{id}")
    assert gone.json == {"deleted": id, "tokens": 0}
    assert (await admin.ask("GET", f"/projects/{id}")).status == 404


@pytest_twisted.ensureDeferred
async def test_credential_never_comes_out_and_is_on_no_record(admin: AdminBench) -> None:
    made = await admin.ask("POST", "/projects", {"name": "p", "credentials": {"openai": KEY}})
    replaced = await admin.ask("POST", "/projects/p/rotate", {"credentials": {"openai": KEY + "2"}})
    listed = await admin.ask("GET", "/projects")
    for reply in (made, replaced, listed):
        assert KEY.encode() not in reply.data
    assert KEY not in repr(admin.audited)
    assert admin.audited[1].before == {"upstreams": {"openai": "[set]"}}
    assert admin.audited[1].after == {"upstreams": {"openai": "[replaced]"}}
    project = await admin.store.project(made.json["id"])
    assert project is not None
    assert project.credentials["openai"].reveal() == KEY + "2"


@pytest_twisted.ensureDeferred
async def test_rotate_replaces_only_what_is_there(admin: AdminBench) -> None:
    await admin.ask("POST", "/projects", {"name": "p"})
    reply = await admin.ask("POST", "/projects/p/rotate", {"credentials": {"openai": KEY}})
    assert (reply.status, reply.code) == (409, "no_such_credential")


async def token_of(admin: AdminBench, **more: Any) -> Any:
    await admin.ask("POST", "/projects", {"name": "p", "credentials": {"openai": KEY}})
    made = await admin.ask("POST", "/tokens", {"project": "p", **more})
    assert made.status == 201, made
    return made.json


@pytest_twisted.ensureDeferred
async def test_token_is_told_once_and_kept_as_its_digest(admin: AdminBench) -> None:
    made = await token_of(
        admin, name="ci", expires="30d", max_requests=5, scopes=["fault"], limits={"tpm": 9}
    )
    secret = made["token"]
    assert len(secret) == 25
    assert made["shown"] == secret[:7] + "…"
    assert made["expires"] == "2025-07-15T15:06:40Z"
    shown = await admin.ask("GET", f"/tokens/{made['id']}")
    assert "token" not in shown.json
    assert {**shown.json, "token": secret} == made
    stored = await admin.store.token(made["id"])
    assert stored is not None
    assert stored.digest == digest_of(secret)
    assert secret not in repr(admin.audited)
    for name in (secret, "ci", f"sha256:{digest_of(secret).hex()}"):
        assert (await admin.ask("GET", f"/tokens/{name}")).json["id"] == made["id"]


@pytest_twisted.ensureDeferred
async def test_name_that_several_tokens_have_names_none(admin: AdminBench) -> None:
    await token_of(admin, name="ci")
    await token_of(admin, name="ci")
    reply = await admin.ask("POST", "/tokens/ci/revoke")
    assert (reply.status, reply.code) == (409, "ambiguous_name")


@pytest_twisted.ensureDeferred
async def test_revoked_token_is_inactive_and_expired_and_the_door_forgets_it(admin: AdminBench) -> None:
    made = await token_of(admin)
    reply = await admin.ask("POST", f"/tokens/{made['id']}/revoke")
    assert reply.json["state"] == "inactive"
    assert reply.json["expires"] == "2025-06-15T15:06:40Z"
    assert admin.forgotten[-1] == ((), (made["id"],))
    again = await admin.ask("PATCH", f"/tokens/{made['id']}", {"active": True})
    assert again.json["state"] == "expired"


@pytest_twisted.ensureDeferred
async def test_rotated_token_keeps_its_id_and_the_old_secret_is_gone(admin: AdminBench) -> None:
    made = await token_of(admin)
    reply = await admin.ask("POST", f"/tokens/{made['id']}/rotate")
    assert reply.status == 200
    assert reply.json["id"] == made["id"]
    assert reply.json["token"] != made["token"]
    assert await admin.store.token_by_digest(digest_of(made["token"])) is None
    assert await admin.store.token_by_digest(digest_of(reply.json["token"])) is not None


@pytest_twisted.ensureDeferred
async def test_token_rotated_with_grace_works_beside_the_new_one_for_a_while(admin: AdminBench) -> None:
    made = await token_of(admin, max_requests=5)
    reply = await admin.ask("POST", f"/tokens/{made['id']}/rotate", {"grace": "1h"})
    assert reply.json["replaces"] == made["id"] != reply.json["id"]
    assert reply.json["max_requests"] == 5
    old = await admin.store.token_by_digest(digest_of(made["token"]))
    assert old is not None
    assert old.expires_at == admin.wall + 3600
    assert await admin.store.token_by_digest(digest_of(reply.json["token"])) is not None


@pytest_twisted.ensureDeferred
async def test_lists_come_in_pages(admin: AdminBench) -> None:
    for number in range(5):
        await admin.ask("POST", "/projects", {"name": f"p{number}"})
    first = await admin.ask("GET", "/projects?limit=2")
    second = await admin.ask("GET", f"/projects?limit=2&after={first.json['next']}")
    last = await admin.ask("GET", f"/projects?limit=2&after={second.json['next']}")
    pages = [[one["name"] for one in page.json["projects"]] for page in (first, second, last)]
    assert pages == [["p0", "p1"], ["p2", "p3"], ["p4"]]
    assert last.json["next"] is None
    for query in ("limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "colour=red", "after=%00"):
        assert (await admin.ask("GET", f"/projects?{query}")).status == 400


@pytest_twisted.ensureDeferred
async def test_all_problems_of_a_body_are_told_at_once(admin: AdminBench) -> None:
    body = {
        "nmae": "x",
        "credentials": {"opnai": "k", "openai": 5},
        "limits": {"rpm": 0, "tpm": True},
        "allow": {"methods": ["get"], "origins": ["http://x/path"]},
    }
    reply = await admin.ask("POST", "/projects", body)
    assert reply.status == 400
    told = {one["pointer"]: one for one in reply.json["error"]["problems"]}
    assert set(told) == {
        "/nmae",
        "/name",
        "/credentials/opnai",
        "/credentials/openai",
        "/limits/rpm",
        "/limits/tpm",
        "/allow/methods/0",
        "/allow/origins/0",
    }
    assert 'did you mean "name"?' in told["/nmae"]["found"]
    assert 'did you mean "openai"?' in told["/credentials/opnai"]["found"]
    assert "anthropic" in told["/credentials/opnai"]["accepted"]


@pytest_twisted.ensureDeferred
async def test_key_in_a_wrong_place_is_not_told_again(admin: AdminBench) -> None:
    for body in (
        {"name": "x", "credentials": {KEY: "openai"}},
        {"name": "x", "credentials": {"openai": KEY + "\n"}},
        {"name": "x", KEY: 1},
        {"name": "x", "credentials": KEY},
    ):
        reply = await admin.ask("POST", "/projects", body)
        assert reply.status == 400
        assert KEY.encode() not in reply.data


@pytest_twisted.ensureDeferred
async def test_taken_name_is_a_conflict_and_on_record_as_refused(admin: AdminBench) -> None:
    await admin.ask("POST", "/projects", {"name": "p"})
    reply = await admin.ask("POST", "/projects", {"name": "p"})
    assert (reply.status, reply.code) == (409, "conflict")
    assert [change.outcome for change in admin.audited] == ["ok", "ok", "refused"]


@pytest_twisted.ensureDeferred
async def test_change_is_on_record_with_who_and_what(admin: AdminBench) -> None:
    made = await admin.ask("POST", "/projects", {"name": "p"})
    await admin.ask("PATCH", "/projects/p", {"active": False}, tcp=True)
    first, second = admin.audited
    assert first.who.startswith("socket uid=")
    assert (first.action, first.target, first.before) == ("project.create", made.json["id"], None)
    assert (second.who, second.address, second.action) == ("admin token", "127.0.0.1", "project.deactivate")
    assert (second.before, second.after) == ({"active": True}, {"active": False})


@pytest_twisted.ensureDeferred
async def test_update_that_changes_nothing_is_none(admin: AdminBench) -> None:
    await admin.ask("POST", "/projects", {"name": "p"})
    reply = await admin.ask("PATCH", "/projects/p", {"active": True})
    assert reply.status == 200
    assert len(admin.audited) == 1
    assert admin.store.calls["update_project"] == 0


CHANGES: list[tuple[str, str, Any]] = [
    ("POST", "/projects", {"name": "q"}),
    ("PATCH", "/projects/p", {"name": "q"}),
    ("DELETE", "/projects/p", None),
    ("POST", "/projects/p/rotate", {"credentials": {"openai": "other"}}),
    ("POST", "/tokens", {"project": "p"}),
    ("PATCH", "/tokens/ci", {"active": False}),
    ("DELETE", "/tokens/ci", None),
    ("POST", "/tokens/ci/rotate", {}),
    ("POST", "/tokens/ci/rotate", {"grace": "1h"}),
    ("POST", "/tokens/ci/revoke", None),
    ("POST", "/key/rotate", {"secret_key": "0123456789abcdef"}),
    ("POST", "/cache/purge", {"all": True}),
    ("POST", "/faults", {"command": "c *"}),
    ("POST", "/breakers", {"name": "openai", "action": "trip"}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
@pytest_twisted.ensureDeferred
async def test_change_that_cannot_be_recorded_is_refused_and_nothing_changes(
    admin: AdminBench, method: str, path: str, body: Any
) -> None:
    await token_of(admin, name="ci")
    before = await state(admin)
    admin.audit_down = True
    reply = await admin.ask(method, path, body)
    assert (reply.status, reply.code) == (503, "audit_unavailable")
    assert reply.headers["Retry-After"]
    assert await state(admin) == before


async def state(admin: AdminBench) -> Any:
    return (
        await admin.store.projects(),
        await admin.store.tokens(),
        admin.store.calls["rotate_key"],
        list(admin.cache.purged),
        admin.engine.mode,
        [one.state for one in admin.breakers],
        len(admin.forgotten),
    )


@pytest.mark.parametrize(("method", "path", "body"), CHANGES[:11])
@pytest_twisted.ensureDeferred
async def test_store_that_is_down_is_told_and_on_record(
    admin: AdminBench, method: str, path: str, body: Any
) -> None:
    await token_of(admin, name="ci")
    admin.store.down = True
    reply = await admin.ask(method, path, body)
    assert (reply.status, reply.code) == (503, "store_unavailable")
    assert all(change.outcome == "ok" for change in admin.audited[:2])
    assert [one.outcome for one in admin.audited[2:]] in ([], ["ok", "failed"])


@pytest_twisted.ensureDeferred
async def test_cache_is_purged_by_what_is_named(admin: AdminBench) -> None:
    made = await admin.ask("POST", "/projects", {"name": "p"})
    wanted: list[tuple[Any, Purge]] = [
        ({"all": True}, Purge(everything=True)),
        ({"url": "openai /v1/models"}, Purge(url=b"openai /v1/models")),
        ({"url": "/to/openai/v1/models?b=1&a=2"}, Purge(url=b"openai /v1/models?a=2&b=1")),
        ({"url": "https://api.openai.com/v1/models"}, Purge(url=b"openai /v1/models")),
        ({"prefix": "openai /v1/"}, Purge(prefix=b"openai /v1/")),
        ({"prefix": "http://127.0.0.1:8000"}, Purge(prefix=b"my-vllm /")),
        ({"project": "p"}, Purge(project=made.json["id"])),
        ({"project": "proj_gone"}, Purge(project="proj_gone")),
    ]
    for body, _ in wanted:
        reply = await admin.ask("POST", "/cache/purge", body)
        assert (reply.status, reply.json) == (200, {"purged": 3}), (body, reply)
    assert admin.cache.purged == [purge for _, purge in wanted]
    for bad in ({}, {"all": True, "url": "openai /"}, {"all": False}, {"url": "no path\n"}):
        assert (await admin.ask("POST", "/cache/purge", bad)).status == 400
    lost = await admin.ask("POST", "/cache/purge", {"url": "opnai /v1"})
    assert lost.status == 404
    assert 'did you mean "openai"?' in lost.json["error"]["message"]


@pytest_twisted.ensureDeferred
async def test_faults_are_commanded_in_the_operators_language(admin: AdminBench) -> None:
    reply = await admin.ask("POST", "/faults", {"command": "r 3 retry_after=2"})
    assert reply.json["mode"]["remaining"] == 3
    assert reply.json["active"] is True
    assert "Rate limit exceeded" in reply.json["text"]
    assert (await admin.ask("GET", "/faults")).json["words"] == admin.control.mode_in_words()
    assert [change.action for change in admin.audited] == ["fault.set"]
    for line in ("xyz", "q", "c 3 upstream=nope"):
        refused = await admin.ask("POST", "/faults", {"command": line})
        assert (refused.status, refused.code) == (400, "command_refused")
    await admin.ask("POST", "/faults", {"command": "status"})
    assert [change.outcome for change in admin.audited] == ["ok", "refused"]


@pytest_twisted.ensureDeferred
async def test_breaker_is_tripped_and_reset(admin: AdminBench) -> None:
    reply = await admin.ask("POST", "/breakers", {"name": "openai", "action": "trip"})
    assert reply.json["breakers"][0]["state"] == "open"
    reply = await admin.ask("POST", "/breakers", {"name": "openai", "action": "reset"})
    assert reply.json["breakers"][0]["state"] == "closed"
    assert (await admin.ask("POST", "/breakers", {"name": "no", "action": "trip"})).status == 404


@pytest_twisted.ensureDeferred
async def test_upstream_is_tested(admin: AdminBench) -> None:
    reply = await admin.ask("POST", "/upstreams/openai/test")
    assert reply.json["verdict"] == "answers"
    assert (await admin.ask("POST", "/upstreams/opnai/test")).status == 404
    assert admin.probed == ["openai"]


@pytest_twisted.ensureDeferred
async def test_status_config_and_usage_are_shown(admin: AdminBench) -> None:
    assert (await admin.ask("GET", "/status")).json["cache"]["entries"] == 3
    assert (await admin.ask("GET", "/config")).json["admin"] == {"token": "[redacted]"}
    assert (await admin.ask("GET", "/cache")).json["backend"] == "memory"
    usage = await admin.ask("GET", "/usage?by=token&since=30d")
    assert usage.json == {"by": "token", "since": "2025-05-16", "usage": [], "left_out": 0}
    assert (await admin.ask("GET", "/usage?by=colour")).status == 400


@pytest_twisted.ensureDeferred
async def test_paths_and_methods_that_are_not_there(admin: AdminBench) -> None:
    for path in (
        "/nothing",
        "/admin/v1",
        "/admin/v1/",
        "/admin/v2/status",
        "/status/",
        "/%ff",
        "/projects//",
    ):
        assert (await admin.ask("GET", path)).status == 404, path
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
        reply = await admin.ask(method, "/projects")
        assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD, POST")
    head = await admin.ask("HEAD", "/status")
    assert (head.status, head.data) == (200, b"")
    assert int(head.headers["Content-Length"]) > 10
    assert (await admin.ask("GET", "http://localhost/admin/v1/status")).status == 200


@pytest_twisted.ensureDeferred
async def test_what_is_off_says_so(tmp_path: Path) -> None:
    admin = await AdminBench(tmp_path, access=False).listen()
    reply = await admin.ask("GET", "/projects")
    await admin.close()
    assert (reply.status, reply.code) == (404, "access_disabled")
    assert "access.enabled" in reply.json["error"]["message"]
