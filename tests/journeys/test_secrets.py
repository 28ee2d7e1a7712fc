"""Secrets planted in every place that can hold one, and looked for in everything that is written.

Each is unique and random.  It may reach the upstream that it is for, and come back in the
upstream's own answer; no file, no line of output and no answer of the proxy's own may hold it,
nor a form of it that anybody could turn back.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, quote_plus

import flaky
import pytest
import raw
from daemon import Daemon
from flaky import CHAT, DONE, HELLO, ROLE, STOP, Flaky, Step, answer, chat_event, close, send, stream, wait

PRESENTED = {
    "bearer": "sk-{}",
    "bearer_of_nobody": "k{}",
    "x_api_key": "sk-ant-{}",
    "api_key": "{}",
    "x_goog_api_key": "AIza{}",
    "query": "q/{}+=&",
    "cookie": "{}",
    "basic": "{}",
    "member": "{}",
}
"""What clients present, by where; random digits in a form that is usual there, or in none."""

CONFIGURED = {
    "api_key": "sk-{}",
    "first": "{}",
    "second": "sk-{}",
    "from_variable": "{}$x",
    "from_file": "{}",
    "header": "Token {}",
    "proxy": "p-{}",
    "admin": "{}",
}

SETTINGS = """\
default_upstream: openai
upstreams:
  openai: {{base_url: "{url}", fallbacks: [{{upstream: keyed}}]}}
  anthropic: {{base_url: "{url}"}}
  google: {{base_url: "{url}"}}
  azure: {{base_url: "{url}"}}
  keyed: {{provider: openai, base_url: "{url}", api_key: "{api_key}", headers: {{X-Tenant: "{header}"}}}}
  several: {{provider: openai, base_url: "{url}", api_keys: ["{first}", "{second}"]}}
  variable: {{provider: openai, base_url: "{url}", api_key: "${{CANARY}}"}}
  file: {{provider: anthropic, base_url: "{url}", api_key: {{file: secret}}, resilience: fragile}}
  proxied: {{provider: openai, base_url: "https://127.0.0.1:1", proxy: "http://user:{proxy}@127.0.0.1:{port}"}}
  dead: {{provider: openai, base_url: "https://127.0.0.1:1", proxy: "http://user:{proxy}@127.0.0.1:1"}}
timeouts: {{headers: 500ms}}
resilience:
  default: &all
    retry: {{max_retries: 1, base_delay: 10ms, budget: {{min_per_second: 1000}}}}
    breaker: {{enabled: true, failure_threshold: 1000}}
    hard_stop: [{{pattern: "final words", user_message: "It is over."}}]
    recategorize: [{{pattern: "sold out", new_status: 429}}]
  fragile:
    retry: {{max_retries: 1, base_delay: 10ms}}
    breaker: {{enabled: true, failure_threshold: 1}}
logging: {{enabled: true, level: debug, format: {form}}}
error_logging: {{enabled: true, max_files: 1000}}
admin: {{token: "{admin}"}}
faults: {{header: true}}
"""


def made(patterns: Mapping[str, str]) -> dict[str, str]:
    return {name: pattern.format(secrets.token_hex(16)) for name, pattern in patterns.items()}


def forms(secret: str) -> Iterator[bytes]:
    """*secret* in every way in which it may be written."""
    data = secret.encode()
    yield data
    for written in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield from (written.encode(), written.lower().encode())
    yield json.dumps(secret)[1:-1].encode()
    yield data.hex().encode()
    yield data[::-1]
    for before in range(3):
        coded = b64encode(bytes(before) + data)[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]
        yield from (coded, coded.replace(b"+", b"-").replace(b"/", b"_"))
    # Half of it would be too much.
    yield data[: len(data) // 2 + 4]
    yield data[-(len(data) // 2 + 4) :]


def leaks(place: str, data: bytes, planted: Mapping[str, str]) -> list[str]:
    """Which of *planted* stand in *data*, and what is around them."""
    found = []
    for name, secret in planted.items():
        for form in forms(secret):
            if (at := data.find(form)) >= 0:
                found.append(f"{name} in {place}: …{data[max(at - 80, 0) : at + 80]!r}…")
                break
    return found


@dataclass
class Scene:
    """A daemon that knows secrets, an upstream that repeats them, and what was said and written.

    :ivar told: answers of the proxy's own, by what was asked.
    """

    proxy: Daemon
    upstream: Flaky
    folder: Path
    presented: dict[str, str]
    configured: dict[str, str]
    told: dict[str, bytes] = field(default_factory=dict)
    seen: bytes = b""

    @property
    def planted(self) -> dict[str, str]:
        own = {f"configured {name}": secret for name, secret in self.configured.items()}
        return {**self.presented, **own}

    def ways(self) -> Iterator[tuple[str, str, dict[str, str], object]]:
        """Requests that show a credential: its name, path, fields and body."""
        one = self.presented
        chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        path, google = "/v1/chat/completions", "/v1beta/models/gemini:generateContent"
        azure = "/to/azure/openai/deployments/gpt/chat/completions?api-version=1"
        login = b64encode(f"me:{one['basic']}".encode()).decode()
        bearer = {"Authorization": f"Bearer {one['bearer']}"}
        yield "bearer", path, bearer, chat
        nobody = {"authorization": f"bearer {one['bearer_of_nobody']}"}
        yield "bearer_of_nobody", path, nobody, {**chat, "stream": True}
        yield "x_api_key", "/v1/messages", {"x-api-key": one["x_api_key"]}, chat
        yield "api_key", azure, {"api-key": one["api_key"]}, chat
        yield "x_goog_api_key", google, {"x-goog-api-key": one["x_goog_api_key"]}, {"contents": []}
        yield "query", f"{google}?alt=json&key={quote(one['query'], safe='')}", {}, {"contents": []}
        cookie = {"Authorization": "Bearer x", "Cookie": f"a=b; session={one['cookie']}"}
        yield "cookie", path, cookie, chat
        yield "basic", path, {"Authorization": f"Basic {login}"}, chat
        yield "member", path, {"Authorization": "Bearer x"}, {**chat, "api_key": one["member"]}
        for name in ("keyed", "several", "variable", "proxied", "dead"):
            yield "bearer", f"/to/{name}{path}", bearer, chat
        yield "x_api_key", "/to/file/v1/messages", {"x-api-key": one["x_api_key"]}, chat

    def scripts(self, name: str) -> Iterator[list[list[Step]]]:
        """What the upstream says: each time all that it can know, the credential *name* included."""
        known = list(self.configured.values())
        if name != "member":
            known.append(self.presented[name])
        coded = [b64encode(f"{'a' * n}{one}".encode()).decode() for one in known for n in range(3)]
        coded += [quote(one, safe="") for one in known]
        echo = f"Incorrect API key provided: {', '.join(known)}. You can find your key. {' '.join(coded)}"
        error = {"error": {"message": echo, "type": "x", "code": "y"}}
        fields = {"Set_Cookie": f"sid={self.presented['cookie']}", "X_Echo": " ".join(known)}
        fields["Location"] = f"http://me:{self.presented['basic']}@there/"
        good = answer(CHAT, **fields)
        for status in ("400 Bad Request", "401 Unauthorized", "403 Forbidden", "500 " + known[-1]):
            yield [answer(error, status, **fields)]
        yield [answer(error, "503 Service Unavailable", **fields), good]
        yield [answer(error, "429 Too Many Requests", Retry_After="0", **fields), good]
        yield [answer(error, **fields), good]
        yield [answer({"error": f"sold out {echo}"}, **fields)]
        yield [answer({"error": f"final words {echo}"}, **fields)]
        broken = b"data: " + json.dumps(error).encode() + b"\n\n"
        yield [stream(ROLE, broken), stream(ROLE, HELLO, STOP, DONE)]
        said = chat_event({"content": echo})
        yield [stream(ROLE, said, STOP, DONE, coded=True)]
        halves = [chat_event({"content": half}) for half in (f"It is {known[-1][:9]}", known[-1][9:])]
        yield [stream(ROLE, *halves, STOP, DONE)]
        # What is kept of a failed answer ends within the last one.
        yield [answer("a" * (64 * 1024 - 26 - 1) + known[-1] + "a" * 999, "500 Too Much", **fields)]
        yield [stream(ROLE, HELLO, cut=True)]
        yield [[close]]
        every = " ".join(known).encode()
        yield [[send(b"HTTP/1.1 " + every + b"\r\n\r\n"), close]]
        yield [[send(b"HTTP/1.1 200 OK\r\n" + every + b"\r\n\r\n"), close]]
        yield [[send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + every), close]]
        if name == "query":
            yield [[wait(0.8), close]]
        # As a proxy before an upstream.
        yield [answer(error, "407 Proxy Authentication Required", **fields)]

    def play(self) -> None:
        """Every way of presenting a credential against everything that an upstream may say."""
        for name, path, headers, body in self.ways():
            for script in self.scripts(name):
                self.upstream.play(*script)
                try:
                    got = raw.ask(self.proxy.url, path, headers, body)
                except HTTPException:
                    continue  # a stream that breaks off
                finally:
                    self.seen += b"".join(repr(request).encode() for request in self.upstream.requests)
                if got.headers.get("x-llmproxyd-error") and got.headers["x-llmproxyd-code"] != "hard_stop":
                    self.told[f"{path.partition('?')[0]} -> {got.status}"] = repr(got).encode()

    def pester(self) -> None:
        """What the proxy refuses by itself."""
        one = self.presented
        ways = {
            "path": b"POST /to/nowhere/v1/chat/completions?key=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            % quote(one["query"]).encode(),
            "no colon": b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization Bearer %s\r\n\r\n",
            "control": b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \x01%s\r\n\r\n",
            "lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: %s\r\n\r\n",
            "chunk": b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
            "coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: %s\r\n\r\n",
            "version": b"GET /v1/models?key=%s HTTP/9.9\r\nHost: x\r\n\r\n",
            "absolute": b"GET http://me:%s@localhost/v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "large": b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s" + b"a" * 100_000 + b"\r\n\r\n",
            "fault": b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-LLMProxyd-Fault: nonsense\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: 0\r\n\r\n",
        }
        self.upstream.play(answer(CHAT))
        for name, text in ways.items():
            secret = one["bearer"].encode()
            self.told[f"refusal of {name}"] = exchange(self.proxy, text % secret if b"%s" in text else text)

    def ask_pages(self) -> None:
        token = {"Authorization": f"Bearer {self.configured['admin']}"}
        forwarded = {"X-Forwarded-For": "192.0.2.1"}
        for path in ("/health", "/health/detailed", "/logs/errors"):
            for name, headers in (("plain", {}), ("token", {**token, **forwarded}), ("outside", forwarded)):
                got = raw.ask(self.proxy.url, path, headers)
                assert got.status == (403 if (name, path != "/health") == ("outside", True) else 200)
                self.told[f"{path} {name}"] = repr(got).encode()
        for command in ("status", "breaker", "help", "breaker reset", "r 1", "n"):
            self.told[f"the answer to {command}"] = self.proxy.command(command).encode()


def exchange(proxy: Daemon, data: bytes) -> bytes:
    """What *data* on a connection of its own is answered."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        try:
            while piece := connection.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
        return got


@pytest.fixture(scope="module", params=["text", "json"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Everything done once in each format of the log; the daemon has stopped."""
    folder = tmp_path_factory.mktemp("secrets")
    presented, configured = made(PRESENTED), made(CONFIGURED)
    file = folder / "llmproxyd.yaml"
    (folder / "secret").write_text(configured["from_file"] + "\n")
    (folder / "secret").chmod(0o600)
    with flaky.flaky() as upstream:
        text = SETTINGS.format(url=upstream.url, port=upstream.port, form=request.param, **configured)
        file.write_text(text)
        file.chmod(0o600)
        with Daemon("--config", str(file), env={"CANARY": configured["from_variable"]}) as proxy:
            found = Scene(proxy, upstream, folder, presented, configured)
            found.play()
            found.pester()
            found.ask_pages()
            proxy.stop()
        # The daemon's own folder is gone with it; its output stays.
        yield found


def test_what_was_planted_was_there(scene: Scene) -> None:
    at_the_upstream = {**scene.presented, **{f"c {name}": text for name, text in scene.configured.items()}}
    del at_the_upstream["c admin"]
    login = b64encode(f"user:{scene.configured['proxy']}".encode())
    assert login in scene.seen
    del at_the_upstream["c proxy"]
    missing = [name for name, secret in at_the_upstream.items() if not leaks("", scene.seen, {name: secret})]
    assert missing == []


def test_the_logs_have_something_to_tell(scene: Scene) -> None:
    requests = list((scene.folder / "logs").glob("*.log"))
    errors = {one.name.partition("_2")[0] for one in (scene.folder / "logs" / "errors").glob("*.log")}
    assert len(requests) > 200
    wanted = {"400", "401", "403", "407", "429", "500", "503", "upstream_protocol_error", "headers_timeout"}
    assert wanted | {"upstream_unreachable", "circuit_open", "hard_stop"} <= errors | {"hard_stop"}
    text = "".join(one.read_text() for one in requests)
    for shown in ("Authorization: Bearer [redacted]", "x-api-key: [redacted]", "api-key: [redacted]"):
        assert shown.lower() in text.lower()
    assert "key=[redacted]" in text
    assert "Set-Cookie: [redacted]" in text
    assert "Incorrect API key provided: [redacted]" in text


def test_no_file_holds_a_secret(scene: Scene) -> None:
    own = {scene.folder / "llmproxyd.yaml", scene.folder / "secret"}
    files = [one for one in scene.folder.rglob("*") if one.is_file() and one not in own]
    found = [
        leak for one in files for leak in leaks(one.name, one.name.encode() + one.read_bytes(), scene.planted)
    ]
    assert found == []


def test_no_output_holds_a_secret(scene: Scene) -> None:
    assert re.search(r"trying again|\"event\": \"retry\"", scene.proxy.output)
    assert leaks("the output", scene.proxy.output.encode(), scene.planted) == []


def test_no_answer_of_the_proxy_itself_holds_a_secret(scene: Scene) -> None:
    codes = {
        code for told in scene.told.values() for code in re.findall(rb"'x-llmproxyd-code': '(\w+)'", told)
    }
    assert {b"circuit_open", b"upstream_protocol_error", b"headers_timeout", b"upstream_unreachable"} <= codes
    found = [leak for place, told in scene.told.items() for leak in leaks(place, told, scene.planted)]
    assert found == []


def test_what_is_in_force_is_printed_without_secrets(scene: Scene) -> None:
    said = refused("--config", str(scene.folder / "llmproxyd.yaml"), "--print-config", CANARY="k" + "x" * 20)
    assert "ended at once with 0" in said
    assert said.count("[redacted]") >= 8
    assert leaks("--print-config", said.encode(), scene.planted) == []


def refused(*arguments: str, **variables: str) -> str:
    """What a daemon says that ends at once."""
    with pytest.raises(AssertionError) as caught, Daemon(*arguments, env=variables):
        """It ends."""
    assert "it ended at once" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'upstreams: {{openai: {{base_url: "https://me:{}@there/v1"}}}}',
        'upstreams: {{openai: {{base_url: "{}@there"}}}}',
        'upstreams: {{openai: {{base_url: "https://there/v1?key={}"}}}}',
        'upstreams: {{openai: {{proxy: "https://me:{}@there:x"}}}}',
        'upstreams: {{openai: {{api_key: ["{}"]}}}}',
        'upstreams: {{openai: {{api_key: {{"{}": 1}}}}}}',
        'upstreams: {{openai: {{api_key: "{}\\n"}}}}',
        'upstreams: {{openai: {{api_keys: "{}"}}}}',
        'upstreams: {{openai: {{api_keys: [["{}"]]}}}}',
        'upstreams: {{openai: {{api_key: a, api_keys: ["{}"]}}}}',
        'upstreams: {{openai: {{api_kee: "{}"}}}}',
        'upstreams: {{openai: {{headers: "{}"}}}}',
        'upstreams: {{openai: {{headers: {{"Authorization: Bearer {}": x}}}}}}',
        'upstreams: {{openai: {{headers: [Authorization, "Bearer {}"]}}}}',
        'admin: "{}"',
        'admin: {{token: {{token: "{}"}}}}',
        'admin: {{token: "{}", token: "{}"}}',
        'target_proxy: {{url: "https://me:{}@there/v1/chat/completions"}}',
        'target_proxy: {{url: "https://there/v1/chat/completions?key={}"}}',
        'target_proxy: {{url: "https://there/chat/completions", api_key: ["{}"]}}',
        'target_proxy: {{url: "https://there/chat/completions", headers: "X-Key: {}"}}',
        'upstreams: {{openai: {{api_key: "{}" "b"}}}}',
    ],
)
def test_a_mistake_is_told_without_the_secret_in_it(text: str, tmp_path: Path) -> None:
    secret = "sk-" + secrets.token_hex(16)
    file = tmp_path / "llmproxyd.yaml"
    file.write_text(text.replace("{}", secret).replace("{{", "{").replace("}}", "}"))
    said = refused("--config", str(file))
    assert "with 1" in said
    assert leaks("what it said", said.encode(), {"the secret": secret}) == []


def test_a_mistake_in_a_variable_is_told_without_the_secret_in_it() -> None:
    secret = "sk-" + secrets.token_hex(16)
    variables = {
        "OPENAI_BASE_URL": f"https://me:{secret}@there/v1",
        "LLMPROXYD_UPSTREAMS__VENICE__PROXY": f"socks://me:{secret}@there",
        "LLMPROXYD_UPSTREAMS__VENICE__API_KEY": f"{secret}\u00e9",
        "LLMPROXYD_ADMIN__TOKENN": secret,
    }
    said = refused("--preset", "venice", **variables)
    assert "OPENAI_BASE_URL" in said
    assert leaks("what it said", said.encode(), {"the secret": secret}) == []


SILENT = """\
upstreams: {{openai: {{base_url: "{url}"}}}}
resilience: {{default: {{retry: {{max_retries: 1, base_delay: 10ms}}}}}}
logging: {{enabled: true, level: debug, include_request_data: false, include_response_data: false}}
error_logging: {{enabled: true}}
"""


def test_what_people_say_is_nowhere_where_nobody_asked_for_it(tmp_path: Path) -> None:
    said, heard = (secrets.token_hex(16) for _ in range(2))
    file = tmp_path / "llmproxyd.yaml"
    with flaky.flaky() as upstream:
        file.write_text(SILENT.format(url=upstream.url))
        with Daemon("--config", str(file)) as proxy:
            text = {**CHAT, "choices": [{"index": 0, "message": {"role": "assistant", "content": heard}}]}
            failed = answer({"error": {"message": "down"}}, "503 Service Unavailable")
            for script in (
                [answer(text)],
                [failed, answer(text)],
                [stream(ROLE, chat_event({"content": heard}), DONE)],
            ):
                for streaming in (False, True):
                    upstream.play(*script)
                    body = {
                        "model": "m",
                        "messages": [{"role": "user", "content": said}],
                        "stream": streaming,
                    }
                    assert heard.encode() in raw.ask(proxy.url, "/v1/chat/completions", {}, body).body
            upstream.play([close])
            assert raw.ask(proxy.url, "/v1/chat/completions", {}, body).status == 502
            proxy.stop()
    files = [one for one in (tmp_path / "logs").rglob("*") if one.is_file()]
    assert len(files) >= 7
    everything = proxy.output.encode() + b"".join(one.read_bytes() for one in files)
    assert leaks("the logs", everything, {"what was said": said, "what was heard": heard}) == []


def test_a_text_that_is_no_secret_is_on_record_where_it_was_asked_for(tmp_path: Path) -> None:
    said = secrets.token_hex(16)
    file = tmp_path / "llmproxyd.yaml"
    with flaky.flaky() as upstream:
        file.write_text(SILENT.replace("include_request_data: false, ", "").format(url=upstream.url))
        with Daemon("--config", str(file)) as proxy:
            upstream.play(answer(CHAT))
            body = {"model": "m", "messages": [{"role": "user", "content": said}]}
            assert raw.ask(proxy.url, "/v1/chat/completions", {}, body).status == 200
            proxy.stop()
    (one,) = (tmp_path / "logs").glob("*.log")
    assert said in one.read_text()
    assert said not in proxy.output


BROKEN = """\
from llmproxyd.pipeline.route import Router

route = Router.route

def broken(self, request):
    if request.path == b"/v1/broken":
        raise ValueError(f"what is {request.headers} of {request.target}, {self.upstreams['keyed'].keys[0].reveal()}?")
    return route(self, request)

Router.route = broken
"""
"""A fault of the proxy's own whose words hold all that they can."""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_fault_of_the_proxys_own_is_told_without_secrets(form: str, tmp_path: Path) -> None:
    presented, configured = made(PRESENTED), made(CONFIGURED)
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(BROKEN)
    (tmp_path / "secret").write_text(configured["from_file"])
    file = tmp_path / "llmproxyd.yaml"
    file.write_text(SETTINGS.format(url="http://127.0.0.1:1", port=1, form=form, **configured))
    env = {"PYTHONPATH": str(tmp_path / "patch"), "CANARY": "c" * 20}
    with Daemon("--config", str(file), env=env) as proxy:
        fields = {"Authorization": f"Bearer {presented['bearer_of_nobody']}", "api-key": presented["api_key"]}
        path = f"/v1/broken?key={quote(presented['query'], safe='')}"
        got = raw.ask(proxy.url, path, {**fields, "Cookie": f"a={presented['cookie']}"}, {"a": 1})
        assert (got.status, got.error["code"]) == (500, "internal_error")
        proxy.stop()
    planted = {**presented, **configured}
    assert leaks("the answer", got.body, planted) == []
    (error,) = (tmp_path / "logs" / "errors").glob("internal_error_*.log")
    assert "ValueError: what is" in error.read_text()
    assert leaks("the error log", error.read_bytes(), planted) == []
    assert "ValueError: what is" in proxy.output
    assert leaks("the output", proxy.output.encode(), planted) == []
