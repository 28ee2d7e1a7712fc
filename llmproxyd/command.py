"""The console script ``llmproxyd``: the daemon, or ``run`` with a command of the user's."""

from __future__ import annotations

import sys


def main() -> None:
    """``llmproxyd run …`` runs a command against a daemon; all else is ``twistd -n llmproxy …``."""
    if sys.argv[1:2] == ["run"]:
        from llmproxyd.testing.command import main as run

        raise SystemExit(run(sys.argv[2:]))
    from llmproxyd.tap import main as daemon

    daemon()


if __name__ == "__main__":
    main()
