"""Verdicts through the admin API and the command line: as data, forgotten on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest_twisted
from adminbench import Reply, UnixConnection, exchange
from bench import Bench
from jsonschema import Draft202012Validator
from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import deferToThread
from wireclient import request

from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import FakeUpstream, Send, json_answer

KEY = b"Authorization: Bearer sk-secret"


class Admin:
    """A proxy whose client ignores a wait, and its admin socket."""

    def __init__(self, proxy: ProxyUnderTest, socket: Path) -> None:
        self.proxy = proxy
        self._socket = socket

    async def ask(self, method: str, path: str) -> Reply:
        connection = UnixConnection(self._socket)
        return await deferToThread(exchange, connection, method, f"/admin/v1{path}", None, {})

    async def verdicts(self, query: str = "") -> list[dict[str, Any]]:
        reply = await self.ask("GET", f"/verdicts{query}")
        assert reply.status == 200
        return list(reply.json["verdicts"])


async def admin(bench: Bench, upstream: FakeUpstream, folder: Path) -> Admin:
    upstream.scripts = [[Send(json_answer({"ok": True}))]]
    socket = folder / "admin.sock"
    audit = folder / "audit.jsonl"
    proxy = bench.proxy(admin={"listen": f"unix:{socket}:mode=600:lockfile=0"}, audit={"file": str(audit)})
    await proxy.open()
    answer = await maybeDeferred(proxy.daemon.control.run, "r * retry_after=5")
    assert answer.ok
    client = await bench.client(proxy)
    for test in (b"one", b"one", b"two"):
        await client.ask(request(b"/v1/chat/completions", KEY, b"x-llmproxyd-test: " + test))
    return Admin(proxy, socket)


@pytest_twisted.ensureDeferred
async def test_verdicts_are_a_resource(bench: Bench, upstream: FakeUpstream, tmp_path: Path) -> None:
    api = await admin(bench, upstream, tmp_path)
    reply = await api.ask("GET", "/verdicts")
    description = (await api.ask("GET", "/openapi.json")).json
    schema = {"$ref": "#/components/schemas/Verdicts", "components": description["components"]}
    Draft202012Validator(schema).validate(reply.json)
    [verdict] = reply.json["verdicts"]
    assert (verdict["name"], verdict["test"]) == ("retry_after_ignored", "one")
    assert verdict["requests"] == [one.request_id for one in api.proxy.finished[:2]]
    assert reply.json["dropped"] == {"requests": 0, "verdicts": 0}


@pytest_twisted.ensureDeferred
async def test_those_of_one_test_and_those_that_would_follow(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    api = await admin(bench, upstream, tmp_path)
    assert await api.verdicts("?test=two") == []
    [later] = await api.verdicts("?test=two&over=true")
    assert later["name"] == "never_came_back"
    assert len(await api.verdicts("?over=false")) == 1
    reply = await api.ask("GET", "/verdicts?over=maybe")
    assert reply.status == 400
    assert "true" in json.dumps(reply.json)


@pytest_twisted.ensureDeferred
async def test_forgetting_is_on_record(bench: Bench, upstream: FakeUpstream, tmp_path: Path) -> None:
    api = await admin(bench, upstream, tmp_path)
    reply = await api.ask("DELETE", "/verdicts")
    assert (reply.status, reply.json) == (200, {"cleared": 1})
    assert await api.verdicts("?over=true") == []
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines][-1] == "verdicts.clear"
