# SPDX-License-Identifier: MIT
"""``junit.xml`` of a run: every plan is in it, however the run ends."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from harness.run.report import NOT_RUN, PlanResult, reason, replace_file, why_not_passed
from harness.run.results_folder import JUNIT_FILE

# What no XML may hold, not even in writing.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_ELEMENTS = {"failed": "failure", "error": "error", "skipped": "skipped", NOT_RUN: "error"}


def write_junit(results: Sequence[PlanResult], *, folder: Path, began_at: datetime) -> None:
    """Write ``junit.xml``; a plan that was not run is an error there, so that the run does not look good.

    :raise OSError: it cannot be written.
    """
    elements = [_ELEMENTS.get(result.outcome) for result in results]
    root = Element("testsuites", name="hil run")
    suite = SubElement(
        root,
        "testsuite",
        name="hil",
        tests=str(len(results)),
        failures=str(elements.count("failure")),
        errors=str(elements.count("error")),
        skipped=str(elements.count("skipped")),
        time=f"{sum(map(_seconds, results)):.3f}",
        timestamp=began_at.isoformat(),
        hostname=platform.node(),
    )
    for result, element in zip(results, elements, strict=True):
        case = SubElement(
            suite,
            "testcase",
            classname=_xml(result.path),
            name=_xml(result.name),
            file=_xml(result.path),
            time=f"{_seconds(result):.3f}",
        )
        _add_properties(case, result)
        if element is not None:
            said = SubElement(case, element, message=_xml(_message(result)))
            said.text = _xml("\n".join(why_not_passed(result)))
    ElementTree.indent(root, " ")
    replace_file(
        folder / JUNIT_FILE, ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"
    )


def properties_of(result: PlanResult) -> list[tuple[str, object]]:
    """Return what a report is to name beside the outcome, as names and values."""
    verdict = result.verdict
    if verdict is None:
        return [("path", result.path)]
    found = [("path", result.path), *verdict.setting.properties(), ("evidence", str(verdict.evidence))]
    if verdict.worker is not None:
        found += [("worker", verdict.worker), ("lost_workers", ", ".join(verdict.lost_workers))]
    return found


def _add_properties(case: Element, result: PlanResult) -> None:
    properties = SubElement(case, "properties")
    for name, value in properties_of(result):
        SubElement(properties, "property", name=name, value=_xml(str(value)))


def _message(result: PlanResult) -> str:
    if result.verdict is not None:
        return reason(result.verdict)
    return result.error or NOT_RUN


def _seconds(result: PlanResult) -> float:
    return 0.0 if result.verdict is None else result.verdict.duration_s


def _xml(text: str) -> str:
    return _NOT_IN_XML.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
