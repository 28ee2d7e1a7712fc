"""Where the admin socket is, and what may be taken away there."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
from twisted.internet.endpoints import _parse  # type: ignore[attr-defined]

from llmproxyd.admin.socket import SYSTEM, SocketError, candidates, default_socket, endpoint, prepare

STATE = Path("/var/lib/llmproxyd")


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({}, "/var/lib/llmproxyd/admin.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/llmproxyd/admin.sock"),
        ({"XDG_RUNTIME_DIR": "relative"}, "/var/lib/llmproxyd/admin.sock"),
        (
            {"XDG_RUNTIME_DIR": "/run/user/7", "RUNTIME_DIRECTORY": "/run/llmproxyd"},
            "/run/llmproxyd/admin.sock",
        ),
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b"}, "/run/a/admin.sock"),
    ],
)
def test_daemon_puts_it_where_the_environment_says(environ: dict[str, str], path: str) -> None:
    assert default_socket(environ, STATE) == Path(path)


def test_client_looks_where_a_daemon_may_have_put_it() -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert candidates(environ, STATE) == [default_socket(environ, STATE), STATE / "admin.sock", SYSTEM]
    assert candidates({**environ, "LLMPROXYD_ADMIN_SOCKET": "/x"}, STATE) == [Path("/x")]


@pytest.mark.parametrize("name", ["plain", "with:colon", "a=b", "back\\slash", "ü"])
def test_endpoint_names_the_path(name: str) -> None:
    args, named = _parse(endpoint(Path("/tmp") / name))
    assert args[1] == f"/tmp/{name}"
    assert named["mode"] == "600"


def test_stale_socket_is_taken_away_and_the_folder_is_private(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "admin.sock"
    prepare(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    prepare(path)
    assert not path.exists()


def test_socket_on_which_somebody_listens_stays(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        with pytest.raises(SocketError, match="another daemon answers"):
            prepare(path)
    assert path.exists()


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(SocketError, match="is no socket"):
        prepare(path)
    link = tmp_path / "link.sock"
    link.symlink_to(path)
    with pytest.raises(SocketError, match="is no socket"):
        prepare(link)
    assert path.read_text() == "precious"


def test_path_that_no_socket_can_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="too long"):
        prepare(tmp_path / ("x" * 120) / "admin.sock")
