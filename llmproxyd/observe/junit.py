"""A report as JUnit XML, as CI systems read it.  Pure.

A suite for each scenario, in which each step of each run is a test case, and one for the verdicts.  A step to
which fewer requests came than should have, and every verdict, is a failure; where the scenario was stopped,
such a step is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

MOST_CASES = 10_000
"""Test cases of one suite; those that are left out are counted."""

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_COUNTED = {"failure": "failures", "skipped": "skipped"}

Row = Mapping[str, Any]


def junit(told: Row) -> bytes:
    """What :meth:`llmproxyd.observe.report.Report.told` tells, as a document."""
    top = Element("testsuites", name="llmproxyd")
    for scenario in told["scenarios"]:
        _scenario(top, scenario)
    _faults(top, told)
    _verdicts(top, told["verdicts"])
    for counted in ("tests", "failures", "skipped"):
        top.set(counted, str(sum(int(suite.get(counted, "0")) for suite in top)))
    output = SubElement(top[-1], "system-out")
    lines = [_line(one) for one in told["requests"]]
    if left_out := told["left_out"]["requests"]:
        lines.append(f"… and {left_out} more requests")
    output.text = _clean("\n".join(lines))
    indent(top)
    document: bytes = tostring(top, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _scenario(top: Element, scenario: Row) -> None:
    suite = _suite(top, scenario["name"])
    _properties(suite, {name: scenario[name] for name in ("line", "scope", "place", "seed", "forgotten")})
    # What nobody waits for any more is no failure.
    amiss = "skipped" if scenario["stopped"] else "failure"
    for run in scenario["runs"]:
        for number, step in enumerate(run["steps"], 1):
            why = None
            if step["missing"]:
                times = step["times"] or 1
                why = f"{step['taken']} of {times} request{'' if times == 1 else 's'} came to this step"
            _case(suite, f"{scenario['name']}.{run['run']}", f"{number}. {step['step']}", why, amiss)
    if not scenario["runs"] and scenario["never"]:
        _case(suite, scenario["name"], scenario["line"], "no request came to any step", amiss)


def _faults(top: Element, told: Row) -> None:
    """The faults that are in no scenario, and those whose spot no answer reached."""
    elsewhere = sum(one["never"] for one in told["scenarios"] if not one["stopped"])
    suite = _suite(top, "faults")
    parts = [f"{told['never'] - elsewhere} never reached"] if told["never"] > elsewhere else []
    parts += [f"{name} was never reached" for name in told["idle"]]
    _case(suite, "faults", "every fault that was asked for came", "; ".join(parts) or None)


def _verdicts(top: Element, verdicts: list[Row]) -> None:
    suite = _suite(top, "verdicts")
    for one in verdicts:
        text = str(one.get("text", ""))
        _case(suite, "verdicts", str(one.get("name", "verdict")), text or "a verdict")
    if not verdicts:
        _case(suite, "verdicts", "no verdict", None)


def _suite(top: Element, name: str) -> Element:
    return SubElement(top, "testsuite", name=_clean(name), tests="0", failures="0", errors="0", skipped="0")


def _properties(suite: Element, values: Mapping[str, object]) -> None:
    properties = SubElement(suite, "properties")
    for name, value in values.items():
        SubElement(properties, "property", name=name, value="" if value is None else _clean(str(value)))


def _case(suite: Element, group: str, name: str, why: str | None, amiss: str = "failure") -> None:
    """Add a test case to *suite*.

    :param why: what is amiss with it, if anything is.
    :param amiss: what it is then: a ``failure``, or ``skipped``.
    """
    count = int(suite.get("tests", "0"))
    if count >= MOST_CASES and why is None:
        return
    suite.set("tests", str(count + 1))
    case = SubElement(suite, "testcase", classname=_clean(group), name=_clean(name))
    if why is not None:
        counted = _COUNTED[amiss]
        suite.set(counted, str(int(suite.get(counted, "0")) + 1))
        SubElement(case, amiss, message=_clean(why)).text = _clean(why)


def _line(row: Row) -> str:
    """``#3 POST /v1/chat/completions 429 rate_limit complete [t-1]``."""
    parts = [f"#{row['number']}", row["method"], row["path"], str(row["status"])]
    parts += [row["fault"] + (" (not reached)" if row["unreached"] else "")] if row["fault"] else []
    parts += [row["end"], *([f"[{row['test']}]"] if row["test"] else [])]
    return " ".join(parts)


def _clean(text: str) -> str:
    """*text* without what XML 1.0 cannot hold (§2.2)."""
    return _NO_XML.sub("�", text)
