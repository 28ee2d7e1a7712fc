"""An outage under load: what the clients ask for is hardly multiplied, and nothing is left over."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from daemon import Daemon
from flaky import CHAT, answer, flaky, openai_error
from raw import connect, send

CLIENTS = 64
SECONDS = 20.0
RATIO, LEAST, WINDOW = 0.2, 2.0, 5.0

SETTINGS = f"""\
upstreams:
  openai: {{{{base_url: "{{url}}"}}}}
resilience:
  default:
    retry:
      max_retries: 5
      base_delay: 20ms
      max_delay: 100ms
      budget: {{{{ratio: {RATIO}, min_per_second: {LEAST}, window: {WINDOW}}}}}
logging: {{{{level: error}}}}
"""


def resident(process: int) -> int:
    """Bytes of memory of *process*."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def test_an_outage_is_not_multiplied_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "llmproxyd.yaml"
    with flaky() as upstream:
        file.write_text(SETTINGS.format(url=upstream.url))
        upstream.play(openai_error("503 Service Unavailable", "down"))
        with Daemon("--config", str(file)) as proxy:
            process = proxy.process.pid
            linux = Path(f"/proc/{process}/statm").exists()
            statuses: list[int] = []
            memory: list[int] = []
            over = time.monotonic() + SECONDS

            def ask() -> None:
                connection = connect(proxy.url)
                while time.monotonic() < over:
                    statuses.append(
                        send(connection, "POST", "/v1/chat/completions", body={"model": "m"}).status
                    )
                    time.sleep(0.05)
                connection.close()

            threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
            files = open_files(process) if linux else 0
            for thread in threads:
                thread.start()
            while time.monotonic() < over:
                time.sleep(1)
                memory += [resident(process)] if linux else []
            for thread in threads:
                thread.join()

            assert set(statuses) == {503}
            assert len(statuses) > 1000
            attempts = len(upstream.requests)
            assert len(statuses) < attempts <= len(statuses) * (1 + RATIO) + LEAST * (SECONDS + WINDOW)

            upstream.play(answer(CHAT))
            connection = connect(proxy.url)
            assert send(connection, "POST", "/v1/chat/completions", body={"model": "m"}).status == 200
            connection.close()
            if linux:
                # The second half of the outage needs no more than the first did.
                half = len(memory) // 2
                assert max(memory[half:]) <= max(memory[:half]) + 4 * 1024**2
                left = time.monotonic() + 5
                # Idle connections to the upstream are kept (pool.max_idle), those of clients are gone.
                while open_files(process) > files + 64 and time.monotonic() < left:
                    time.sleep(0.05)
                assert open_files(process) <= files + 64
