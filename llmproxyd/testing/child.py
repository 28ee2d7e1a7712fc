"""The daemon as a child of whoever tests with it: it stops when its parent is gone, however that ended."""

from __future__ import annotations

import os
import signal
import threading


def _wait_for_parent() -> None:
    # The parent holds the other end; the system closes it even when the parent is killed.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run ``twistd -n llmproxy`` with the arguments of this process, until standard input ends."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()
    from llmproxyd.tap import main as run

    run()


if __name__ == "__main__":
    main()
