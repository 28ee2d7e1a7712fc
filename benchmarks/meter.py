"""What a process and its children cost, from ``/proc``; None on systems that have none."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def available() -> bool:
    """Whether this system tells."""
    return (PROC / "self" / "schedstat").exists()


def family(root: int) -> list[int]:
    """*root* and all processes that descend from it."""
    if not available():
        return [root]
    parents: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu(pids: list[int]) -> int | None:
    """Nanoseconds on a CPU, of all threads."""
    if not pids or not available():
        return None
    total = 0
    for pid in pids:
        for task in os.listdir(PROC / str(pid) / "task"):
            try:
                total += int((PROC / str(pid) / "task" / task / "schedstat").read_text().split()[0])
            except OSError:
                continue
    return total


def memory(pids: list[int]) -> int | None:
    """Bytes in use now: the proportional share where the system tells it, else the resident set."""
    return _sum(pids, "smaps_rollup", "Pss:") or _sum(pids, "status", "VmRSS:")


def resident(pids: list[int]) -> int | None:
    """Bytes in memory now."""
    return _sum(pids, "status", "VmRSS:")


def peak(pids: list[int]) -> int | None:
    """The most bytes that were in memory at any time."""
    return _sum(pids, "status", "VmHWM:")


def _sum(pids: list[int], name: str, key: str) -> int | None:
    total = 0
    for pid in pids:
        try:
            lines = (PROC / str(pid) / name).read_text().splitlines()
        except OSError:
            return None
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    return total or None
