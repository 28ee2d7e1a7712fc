"""A long run: ``python -m tests.fuzz --requests 100000 --seed 1 --jobs 2``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from .run import in_a_process


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--requests", type=int, default=20_000, help="how many connections [%(default)s]")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--first", type=int, default=0, help="begin with this number")
    options.add_argument("--jobs", type=int, default=2)
    chosen = options.parse_args()
    share = -(-chosen.requests // chosen.jobs)
    begun = time.monotonic()
    with ProcessPoolExecutor(chosen.jobs, mp_context=get_context("spawn")) as pool:
        firsts = [chosen.first + share * job for job in range(chosen.jobs)]
        running = [pool.submit(in_a_process, chosen.seed, first, first + share) for first in firsts]
        tallies = [one.result() for one in running]
    findings = [finding for tally in tallies for finding in tally.findings]
    kinds = Counter(finding.what[:60] for finding in findings)
    for finding in findings[:50]:
        print(finding)
    for what, count in kinds.most_common():
        print(f"{count:7}  {what}")
    statuses = sum((tally.statuses for tally in tallies), Counter[bytes]())
    print(
        f"{sum(tally.connections for tally in tallies)} connections, "
        f"{sum(tally.forwarded for tally in tallies)} requests upstream, {len(findings)} findings, "
        f"{time.monotonic() - begun:.0f} s; answers: "
        + ", ".join(f"{status.decode()}: {count}" for status, count in sorted(statuses.items()))
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
