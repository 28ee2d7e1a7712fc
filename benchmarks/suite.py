"""Runs the scenarios with all peers, in turn, and reports."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import environment
import meter
import proxies
from environment import HERE, SetupError, say
from launch import PEERS, Peer, PeerError, Rig, start_peer
from report import Results, judge, text_of
from scenarios import Scenario, scenarios

TOP = """\
import pstats, sys
stats = pstats.Stats(sys.argv[1])
stats.strip_dirs().sort_stats("tottime").print_stats(40)
"""


def options() -> argparse.ArgumentParser:
    """The command line."""
    groups = list(dict.fromkeys(one.group for one in scenarios(quick=True)))
    names = [one.name for one in scenarios(quick=True)]
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="Measure llmproxyd beside nginx, aiohttp and stock Twisted, all on loopback.",
        epilog=f"Scenarios: {', '.join(names)}; groups of them: {', '.join(groups)}. "
        "Only when it is named: proxies, the daemon beside nginx and those that people run (LiteLLM, "
        "Portkey's gateway, FastAPI with httpx); what it sets up for them, once, takes some 800 MB.",
    )
    parser.add_argument("--quick", action="store_true", help="short and rough: less than two minutes")
    parser.add_argument("--only", metavar="NAME,...", help="these scenarios or groups alone")
    parser.add_argument("--peers", metavar="NAME,...", help=f"these peers alone, of {', '.join(PEERS)}")
    parser.add_argument("--repeats", type=int, metavar="N", help="measure each N times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there, too")
    parser.add_argument(
        "--project",
        type=Path,
        default=HERE.parent,
        metavar="PATH",
        help="checkout whose daemon is measured [default: this one]",
    )
    parser.add_argument(
        "--python", default=sys.executable, metavar="PROGRAM", help="interpreter for all of it"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=environment.default_work(),
        metavar="PATH",
        help="folder for what is kept between runs [default: %(default)s]",
    )
    parser.add_argument(
        "--cpus", metavar="A,B", help="CPU of the proxy, CPU of the load; on one core each, if you can"
    )
    parser.add_argument(
        "--profile", metavar="SCENARIO", help="no table: the daemon's 40 dearest functions in that scenario"
    )
    return parser


def main() -> int:
    """Do what the command line says; the exit status."""
    parser = options()
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = _wanted(parser, chosen)
    peers = _peers(parser, chosen.peers)
    chosen.others = _others()
    try:
        with tempfile.TemporaryDirectory(prefix="llmproxyd-benchmark-") as scratch:
            rig, certificate = _rig(chosen, Path(scratch))
            try:
                rig.start_upstream(certificate)
                if chosen.profile:
                    return profile(rig, wanted[0])
                large = [name for name in proxies.NAMES if any(name in one.peers for one in wanted)]
                large = [name for name in large if name in peers]
                rig.places = proxies.set_up(large, chosen.work.absolute(), chosen.python)
                return _measure_all(rig, wanted, peers, chosen)
            finally:
                rig.stop_all()
    except (SetupError, PeerError) as error:
        print(f"benchmarks/run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _measure_all(rig: Rig, wanted: list[Scenario], peers: tuple[str, ...], chosen: argparse.Namespace) -> int:
    facts = environment.describe(rig.interpreter, rig.nginx)
    facts |= proxies.versions(rig.places) | {"others": chosen.others}
    facts["rig"] = _rig_note(rig, quick=chosen.quick)
    runner = Runner(rig, peers)
    for scenario in wanted:
        runner.measure(scenario, chosen.repeats or scenario.repeats)
    print(text_of(facts, runner.results, wanted))
    if chosen.json is not None:
        goals = [
            {"asked": one.goal.text, "value": one.value, "marks": one.goal.marks, "reached": one.mark}
            for one in judge(runner.results)
        ]
        told = {"facts": facts, "results": runner.results, "goals": goals, "samples": runner.samples}
        chosen.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return 0 if any("error" not in one for one in _ours(runner.results)) else 1


def _others() -> str:
    """How much this machine had to do before; more than a little makes all figures rough."""
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"this machine is busy already (load average {load:.1f}): only ratios of CPU time mean much")
    return f"load average {load:.1f} before it began"


class Runner:
    """Starts peers when they are needed, and gathers what is measured."""

    def __init__(self, rig: Rig, peers: tuple[str, ...]) -> None:
        self.results: Results = {}
        self.samples: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self._rig = rig
        self._peers = peers
        self._running: dict[tuple[str, str], Peer] = {}
        self._missing: dict[tuple[str, str], str] = {}

    def measure(self, scenario: Scenario, repeats: int) -> None:
        """All repeats of one scenario: each peer once, then each once more."""
        peers = [name for name in scenario.peers if name in self._peers]
        samples: dict[str, list[dict[str, Any]]] = {name: [] for name in peers}
        started = time.monotonic()
        for number in range(repeats):
            for name in peers:
                _progress(f"{scenario.name} {number + 1}/{repeats} {name}")
                if not any("error" in one for one in samples[name]):
                    samples[name].append(self._once(scenario, name))
        _progress("")
        say(f"{scenario.name}: {time.monotonic() - started:.0f} s")
        found = {name: _median(several) for name, several in samples.items()}
        _add_latency(found)
        _add_ratios(found, samples)
        for name, figures in found.items():
            if "error" in figures:
                say(f"  {name} is left out: {figures['error'].splitlines()[0]}")
        self.results[scenario.name] = found
        self.samples[scenario.name] = samples

    def _once(self, scenario: Scenario, name: str) -> dict[str, Any]:
        try:
            peer = self._peer(name, scenario)
        except PeerError as error:
            return {"error": str(error)}
        job = {**scenario.job, "port": peer.port, "pid": peer.pid, "upstream": self._rig.upstream}
        job["fields"] = peer.fields
        limit = 150.0 + job.get("seconds", 0.0)
        result = self._rig.load(job, limit)
        if scenario.fresh and peer.process is not None:
            self._rig.stop(peer.process)
        return result

    def _peer(self, name: str, scenario: Scenario) -> Peer:
        key = (name, scenario.variant)
        if key in self._missing:
            raise PeerError(self._missing[key])
        if not scenario.fresh and key in self._running and self._running[key].alive():
            return self._running[key]
        try:
            peer = start_peer(self._rig, name, scenario.variant)
        except PeerError as error:
            self._missing[key] = str(error)
            raise
        if not scenario.fresh:
            self._running[key] = peer
        return peer


def profile(rig: Rig, scenario: Scenario) -> int:
    """Run the daemon under cProfile for one scenario, and print what took its time."""
    stats = rig.scratch / "stats"
    twistd = [f"--profile={stats}", "--profiler=cprofile", "--savestats"]
    peer = start_peer(rig, "llmproxyd", scenario.variant, twistd)
    assert peer.process is not None
    job = {**scenario.job, "port": peer.port, "pid": peer.pid, "upstream": rig.upstream}
    if "seconds" in job:
        job["seconds"] = 5.0
    say(f"{scenario.name} under the profiler: {rig.load(job, 300)}")
    peer.process.terminate()
    with contextlib.suppress(Exception):
        peer.process.wait(40)
    if not stats.exists():
        raise PeerError("the profiler has left nothing")
    environment_python = str(rig.interpreter)
    return os.spawnv(os.P_WAIT, environment_python, [environment_python, "-c", TOP, str(stats)])


def _median(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure; what failed once has failed."""
    for sample in samples:
        if "error" in sample:
            return {"error": sample["error"]}
    figures: dict[str, Any] = {}
    for name in samples[0] if samples else ():
        values = [sample[name] for sample in samples if sample[name] is not None]
        figures[name] = statistics.median(values) if values else None
    if "worst" in figures:
        figures["worst"] = max(sample["worst"] for sample in samples)
    return figures


def _add_latency(found: dict[str, dict[str, Any]]) -> None:
    """What each peer adds to the way of an event."""
    direct = found.get("direct", {})
    for figures in found.values():
        for name in ("p50", "p99"):
            if name in figures and name in direct:
                figures[f"added_{name}"] = figures[name] - direct[name]


def _add_ratios(found: dict[str, dict[str, Any]], samples: dict[str, list[dict[str, Any]]]) -> None:
    """How many times the daemon answers what each peer answers, and how many times its cost they have.

    The median of each round's ratio: what other work the machine has changes from round to round.
    """
    for name, figures in found.items():
        rounds = list(zip(samples.get("llmproxyd", ()), samples[name], strict=False))
        rates = [ours["rate"] / its["rate"] for ours, its in rounds if ours.get("rate") and its.get("rate")]
        costs = [its["cpu"] / ours["cpu"] for ours, its in rounds if ours.get("cpu") and its.get("cpu")]
        if rates:
            figures["rate_ratio"] = statistics.median(rates)
        if costs:
            figures["cpu_ratio"] = statistics.median(costs)


def _wanted(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> list[Scenario]:
    known = scenarios(quick=chosen.quick)
    text = chosen.profile or chosen.only
    if text is None:
        return [one for one in known if not one.asked]
    names = text.split(",")
    for name in names:
        if not any(name in (one.name, one.group) for one in known):
            parser.error(f"no scenario {name!r}; there are {', '.join(one.name for one in known)}")
    found = [one for one in known if one.name in names or one.group in names]
    # Of several that share a name, the usual load is in the middle.
    return [found[len(found) // 2]] if chosen.profile else found


def _peers(parser: argparse.ArgumentParser, text: str | None) -> tuple[str, ...]:
    if text is None:
        return PEERS
    names = tuple(text.split(","))
    for name in names:
        if name not in PEERS:
            parser.error(f"no peer {name!r}; there are {', '.join(PEERS)}")
    return names


def _rig(chosen: argparse.Namespace, scratch: Path) -> tuple[Rig, Path]:
    _raise_limit()
    work = chosen.work.absolute()
    interpreter = environment.prepare(work, chosen.python, chosen.project.resolve())
    certificate, authority = environment.certificate(scratch, interpreter)
    return Rig(interpreter, scratch, _cpus(chosen.cpus), authority, environment.find_nginx()), certificate


def _cpus(text: str | None) -> tuple[int, int] | None:
    if not hasattr(os, "sched_setaffinity"):
        say("processes cannot be pinned to a CPU here: expect figures that vary")
        return None
    if text is not None:
        proxy, load = text.split(",")
        return int(proxy), int(load)
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        say("there is one CPU only: load and proxy are in each other's way")
    return allowed[-1], allowed[0]


def _rig_note(rig: Rig, *, quick: bool) -> str:
    note = "medians of interleaved repeats"
    if rig.cpus is not None:
        note += f"; proxy on CPU {rig.cpus[0]}, upstream and load on CPU {rig.cpus[1]}"
    note += "; llmproxyd writes its request log to a file, the other peers write none"
    if not meter.available():
        note += "; this system does not tell what a process costs"
    return note + ("; quick and rough" if quick else "")


def _raise_limit() -> None:
    """Let all processes have as many connections as this system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wished = 30_000 if hard == resource.RLIM_INFINITY else min(30_000, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wished, hard))


def _ours(results: Results) -> list[dict[str, Any]]:
    return [peers["llmproxyd"] for peers in results.values() if "llmproxyd" in peers] or [{}]


def _progress(text: str) -> None:
    """What is measured now, in one line of the terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:60}\r", end="", file=sys.stderr, flush=True)
