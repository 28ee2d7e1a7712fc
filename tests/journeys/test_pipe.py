"""Commands through a pipe, and every other thing that standard input can be."""

from __future__ import annotations

import time

import pytest
import raw
from daemon import Daemon


def test_commands_come_through_a_pipe_and_are_answered() -> None:
    with Daemon("--sandbox") as daemon:
        said = daemon.command("r 2")
        assert "Current mode: Rate limit exceeded (next 2 requests, for 8h more)" in said
        assert "Requests handled: 0" in said
        assert raw.openai(daemon.url).status == 429
        assert "Requests handled: 1" in daemon.command("status")
        assert "error KIND" in daemon.command("help")
        said = daemon.command("n")
        assert "Current mode: No error (pass through)" in said
        assert raw.openai(daemon.url).status == 200
        assert "Enter command" not in daemon.output
        assert "\x1b" not in daemon.output


def test_q_through_a_pipe_ends_it_with_status_0() -> None:
    with Daemon("--sandbox") as daemon:
        daemon.type("q")
        assert daemon.ended() == 0
        assert "Stopping." in daemon.output
        assert "Traceback" not in daemon.output


def test_a_closed_pipe_leaves_it_running_in_its_mode() -> None:
    with Daemon("--sandbox") as daemon:
        daemon.command("c *")
        daemon.close_stdin()
        for _ in range(3):
            assert raw.openai(daemon.url).status == 400
            time.sleep(0.1)
        assert daemon.process.poll() is None
        assert daemon.stop() == 0


def test_a_last_line_without_its_end_counts() -> None:
    with Daemon("--sandbox") as daemon:
        assert daemon.process.stdin is not None
        daemon.process.stdin.write(b"c 2\nu *")
        daemon.close_stdin()
        daemon.wait_for("Current mode: Unknown server error")
        assert raw.openai(daemon.url).status == 500


def test_lines_may_come_in_pieces_many_at_once_and_garbled() -> None:
    with Daemon("--sandbox") as daemon:
        pipe = daemon.process.stdin
        assert pipe is not None
        for piece in (b"r", b" *", b"\r\n", b"c 5\n\n\n \nu 4\n"):
            pipe.write(piece)
            pipe.flush()
            time.sleep(0.02)
        daemon.wait_for(r"next 4 requests")
        assert "Rate limit exceeded (every request, for 8h more)" in daemon.output
        assert "next 5 requests" in daemon.output
        pipe.write(b"\xff\xfe\x00\x1b[2J\n" + b"c" * 100_000 + b"\n")
        assert "next 4 requests" in daemon.command("status")
        assert len(daemon.output) < 20_000
        assert "\x1b" not in daemon.output


@pytest.mark.parametrize("stdin", ["null", "closed"])
def test_without_an_input_it_runs_and_stops_as_ever(stdin: str) -> None:
    with Daemon("--sandbox", "--mode", "c 1", stdin=stdin) as daemon:
        assert [raw.openai(daemon.url).status for _ in range(2)] == [400, 200]
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.output


def test_no_stdin_takes_no_commands() -> None:
    with Daemon("--sandbox", "--no-stdin") as daemon:
        daemon.type("c *")
        daemon.type("q")
        time.sleep(0.3)
        assert raw.openai(daemon.url).status == 200
        assert daemon.stop() == 0


def test_where_faults_may_not_be_set_they_are_refused() -> None:
    with Daemon("--sandbox", env={"LLMPROXYD_OPERATOR__FAULTS": "false"}) as daemon:
        assert "operator.faults" in daemon.command("c *")
        assert raw.openai(daemon.url).status == 200
