"""Starting and stopping: the upstream, the peers, and one load after the other.

Whatever is started here is remembered by its process id, and only that is ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import meter
import proxies
from environment import HERE, SetupError
from shapes import KEY

START = 20.0
"""Seconds granted to a peer until it answers."""
STOP = 5.0
"""Seconds granted to a process until it is killed."""

Result = dict[str, Any]


class PeerError(Exception):
    """A peer does not work."""


@dataclass
class Rig:
    """What all peers have in common.

    :ivar cpus: one for the proxy, one for the upstream and the load; None where a process
        cannot be pinned.
    :ivar scratch: folder for configurations and logs.
    :ivar places: where those of the proxies that people run are that were asked for.
    """

    interpreter: Path
    scratch: Path
    cpus: tuple[int, int] | None
    authority: Path
    nginx: str | None
    upstream: int = 0
    upstream_tls: int = 0
    places: dict[str, proxies.Place] = field(default_factory=dict)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, name: str, command: list[str], *, proxy: bool, more: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Run *command*, pinned, with its output in a file.

        :param more: environment variables of its own.
        """
        cpu = None if self.cpus is None else self.cpus[0 if proxy else 1]
        with (self.scratch / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_clean_environment() | (more or {}),
                cwd=self.scratch,
                preexec_fn=lambda: _pin(cpu),
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End it, gently if it can be."""
        if process.poll() is None:
            pids = meter.family(process.pid)
            process.terminate()
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait(STOP)
        if process in self.running:
            self.running.remove(process)

    def stop_all(self) -> None:
        """End everything that runs."""
        for process in list(self.running):
            self.stop(process)

    def start_upstream(self, certificate: Path) -> None:
        """Start the upstream of all peers."""
        self.upstream, self.upstream_tls = free_port(), free_port()
        command = [str(self.interpreter), str(HERE / "upstream.py"), "--port", str(self.upstream)]
        command += ["--tls-port", str(self.upstream_tls), "--certificate", str(certificate)]
        process = self.start("upstream", command, proxy=False)
        self.await_answer(process, "upstream", self.upstream)

    def await_answer(
        self,
        process: subprocess.Popen[bytes],
        name: str,
        port: int,
        fields: str = "",
        patience: float = START,
    ) -> None:
        """Wait until it answers a request as it should.

        :param fields: more header fields that it must be asked with.
        :param patience: seconds granted to it.
        :raises PeerError: it does not in time.
        """
        end = time.monotonic() + patience
        problem = "does not start"
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                result = self.load({"kind": "probe", "port": port, "pid": None, "fields": fields}, START)
                if "error" not in result:
                    return
                problem = result["error"]
            time.sleep(0.05)
        log = (self.scratch / f"{name}.log").read_text(errors="replace")[-1000:]
        self.stop(process)
        raise PeerError(f"{name} {problem}\n{log}")

    def load(self, job: Result, limit: float) -> Result:
        """Run one measurement in a process of its own.

        :param limit: seconds after which it is given up.
        """
        cpu = None if self.cpus is None else self.cpus[1]
        command = [str(self.interpreter), str(HERE / "load.py"), json.dumps(job)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit,
                check=False,
                preexec_fn=lambda: _pin(cpu),
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done in {limit:g} s"}
        try:
            result: Result = json.loads(done.stdout)
        except ValueError:
            result = {"error": done.stderr[-500:] or f"load ended with {done.returncode}"}
        return result


@dataclass
class Peer:
    """One running proxy.

    :ivar pid: None for the upstream itself, which has no cost of its own here.
    :ivar fields: more header fields that it must be asked with.
    """

    name: str
    port: int
    pid: int | None
    process: subprocess.Popen[bytes] | None
    fields: str = ""

    def alive(self) -> bool:
        """Whether it can be measured."""
        return self.process is None or self.process.poll() is None


Command = Callable[[Rig, int, str, list[str]], list[str]]


def start_peer(rig: Rig, name: str, variant: str, twistd: list[str] | None = None) -> Peer:
    """Start the peer *name*.

    :param variant: ``plain``; ``tls``, whose upstream speaks TLS; ``upload``, which takes bodies
        of any size; ``streams``, which opens more than 1,000 connections to one upstream.
    :param twistd: options of twistd, for the daemon alone.
    :raises PeerError: it does not answer, or there is no such peer here.
    """
    if name == "direct":
        return Peer(name, rig.upstream_tls if variant == "tls" else rig.upstream, None, None)
    port = free_port()
    command = COMMANDS[name](rig, port, variant, twistd or [])
    label = f"{name}-{variant}"
    fields = proxies.fields(name, rig.upstream)
    process = rig.start(label, command, proxy=True, more=proxies.ENVIRONMENT.get(name))
    rig.await_answer(process, label, port, fields, proxies.START if name in proxies.NAMES else START)
    return Peer(name, port, process.pid, process, fields)


def _base(rig: Rig, variant: str) -> str:
    if variant == "tls":
        return f"https://127.0.0.1:{rig.upstream_tls}"
    return f"http://127.0.0.1:{rig.upstream}"


def _daemon(name: str, *more: str) -> Command:
    """The daemon as shipped, its request log on; only the upstream's address is another.

    :param more: further lines of its configuration.
    """

    def command(rig: Rig, port: int, variant: str, twistd: list[str]) -> list[str]:
        lines = [*_lines(rig, variant), *more]
        config = rig.scratch / f"{name}-{variant}.yaml"
        config.write_text("\n".join(lines) + "\n")
        program = str(rig.interpreter.parent / "twistd")
        return [program, "-n", *twistd, "llmproxy", "--config", str(config), "--port", str(port)]

    return command


def _lines(rig: Rig, variant: str) -> list[str]:
    lines = ["upstreams:", "  openai:", f"    base_url: {_base(rig, variant)}"]
    if variant == "tls":
        lines += ["    tls:", f"      ca_file: {rig.authority}"]
    if variant == "streams":
        lines += ["    pool:", "      max_connections: 1100"]
    if variant == "upload":
        lines += ["server:", "  max_body: 4GiB"]
    return lines


def _python_peer(script: str) -> Command:
    def command(rig: Rig, port: int, variant: str, _: list[str]) -> list[str]:
        words = [str(rig.interpreter), str(HERE / "peers" / script), "--port", str(port)]
        words += ["--base", _base(rig, variant)]
        return words + (["--ca-file", str(rig.authority)] if variant == "tls" else [])

    return command


def _relay(rig: Rig, port: int, variant: str, _: list[str]) -> list[str]:
    if variant == "tls":
        raise PeerError("the relay does not speak TLS")
    words = [str(rig.interpreter), str(HERE / "peers" / "relay.py"), "--port", str(port)]
    return [*words, "--upstream", str(rig.upstream)]


NGINX = """\
daemon off;
%(user)s
worker_processes 1;
worker_rlimit_nofile %(files)d;
pid %(folder)s/nginx.pid;
error_log %(folder)s/error.log;
events { worker_connections %(files)d; }
http {
    access_log off;
    client_body_temp_path %(folder)s/body;
    proxy_temp_path %(folder)s/proxy;
    fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi;
    scgi_temp_path %(folder)s/scgi;
    client_max_body_size 0;
    client_body_buffer_size 128k;
    keepalive_requests 100000000;
    upstream provider {
        server 127.0.0.1:%(upstream)d;
        keepalive 64;
        keepalive_requests 100000000;
    }
    server {
        listen 127.0.0.1:%(port)d backlog=4096;
        location / {
            proxy_pass %(scheme)s://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_ssl_trusted_certificate %(authority)s;
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
        }
    }
}
"""


def _nginx(rig: Rig, port: int, variant: str, _: list[str]) -> list[str]:
    """A reverse proxy with a pool; it writes no log, which the others' figures include or not."""
    if rig.nginx is None:
        raise PeerError("nginx is not installed")
    folder = rig.scratch / f"nginx-{variant}"
    folder.mkdir(exist_ok=True)
    tls = variant == "tls"
    text = NGINX % {
        "user": "user root;" if os.geteuid() == 0 else "",
        "files": 15_000,
        "folder": folder,
        "upstream": rig.upstream_tls if tls else rig.upstream,
        "port": port,
        "scheme": "https" if tls else "http",
        "authority": rig.authority,
    }
    config = folder / "nginx.conf"
    config.write_text(text)
    return [rig.nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]


def _gateway(name: str, *more: str) -> Command:
    """The daemon with access on, a store that knows the key of the load, and an admin socket aside."""
    daemon = _daemon

    def command(rig: Rig, port: int, variant: str, twistd: list[str]) -> list[str]:
        folder = rig.scratch / f"{name}-{variant}-state"
        folder.mkdir()
        store = folder / "store.db"
        script = HERE / "peers" / "prepare_store.py"
        subprocess.run([str(rig.interpreter), str(script), str(store), KEY.decode()], check=True)
        lines = (
            f'access: {{enabled: true, store: "sqlite:{store}"}}',
            f'admin: {{listen: "unix:{folder}/admin.sock:mode=600"}}',
            f"audit: {{file: {folder}/audit.jsonl}}",
        )
        return daemon(name, *more, *lines)(rig, port, variant, twistd)

    return command


def _set_up(name: str) -> Command:
    """One of the proxies that people run."""

    def command(rig: Rig, port: int, _variant: str, _: list[str]) -> list[str]:
        place = rig.places[name]
        if isinstance(place, SetupError):
            raise PeerError(str(place))
        return proxies.COMMANDS[name](place, rig.scratch, port, rig.upstream)

    return command


POLICY = ("resilience:", "  default:")
BREAKER = "    breaker: {enabled: true}"
RETRY = "    retry: {max_retries: 3}"
ERROR_LOG = "error_logging: {enabled: true}"
NO_METRICS = "metrics: {enabled: false}"
RULE = 'rules: [{path: "/v1/*", default_ttl: 1h}]'
# Nothing fits into it, so that every answer is looked for and none is found.
MISSES = f"cache: {{enabled: true, max_object_bytes: 1, coalesce: false, {RULE}}}"
HITS = f"cache: {{enabled: true, {RULE}}}"
REQUEST_LOG = "logging: {enabled: true}"

COMMANDS: dict[str, Command] = {
    "llmproxyd": _daemon("llmproxyd"),
    "with-breaker": _daemon("with-breaker", *POLICY, BREAKER),
    "with-retry": _daemon("with-retry", *POLICY, RETRY),
    "with-both": _daemon("with-both", *POLICY, BREAKER, RETRY),
    "with-error-log": _daemon("with-error-log", ERROR_LOG),
    "with-request-log": _daemon("with-request-log", REQUEST_LOG),
    "with-all": _daemon("with-all", *POLICY, BREAKER, RETRY, ERROR_LOG, REQUEST_LOG),
    "without-metrics": _daemon("without-metrics", NO_METRICS),
    "with-tokens": _gateway("with-tokens"),
    "with-misses": _daemon("with-misses", MISSES),
    "with-hits": _daemon("with-hits", HITS),
    "with-gateway": _gateway("with-gateway", MISSES),
    "nginx": _nginx,
    "aiohttp": _python_peer("aiohttp_proxy.py"),
    "aiohttp-app": _python_peer("aiohttp_app.py"),
    "stock": _python_peer("stock_proxy.py"),
    "relay": _relay,
    **{name: _set_up(name) for name in proxies.NAMES},
}
PEERS = ("direct", *COMMANDS)
"""All of them; ``direct`` is no proxy at all."""


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def _pin(cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


LEFT_OUT = (
    "LLMPROXYD_",
    "OPENAI_",
    "ANTHROPIC_",
    "DATABRICKS_",
    "PYTHON",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "LITELLM_",
    "DATABASE_",
    "REDIS_",
    "NODE_OPTIONS",
)


def _clean_environment() -> dict[str, str]:
    """Nothing that would change a peer's configuration."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(LEFT_OUT)}
