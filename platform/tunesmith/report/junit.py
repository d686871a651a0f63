"""``junit.xml``: a gate as CI systems read it, one test case for each rule."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from tunesmith.evaluation.gate import GateResult
from tunesmith.report import gate_words

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 allows in no document, not even escaped (section 2.2)."""


def render(found: GateResult) -> str:
    """The file as text. A rule that is not settled and let through is a skipped test."""
    blocking = sum(one.blocks for one in found.outcomes)
    skipped = sum(one.status != "passed" and not one.blocks for one in found.outcomes)
    counts = {"tests": len(found.outcomes), "failures": blocking, "errors": 0, "skipped": skipped, "time": _time(found.seconds)}
    about = {key: str(value) for key, value in counts.items()}
    suites = ET.Element("testsuites", {"name": "tunesmith gate", **about})
    suite = ET.SubElement(suites, "testsuite", {"name": legal(found.target), "timestamp": found.date, **about})
    properties = ET.SubElement(suite, "properties")
    known = {"gate": found.gate, "baseline": found.baseline, "n": found.n, "split": found.split, "data_hash": found.data_hash}
    for name, value in known.items():
        if value is not None:
            ET.SubElement(properties, "property", {"name": name, "value": legal(str(value))})
    share = _time(found.seconds / max(len(found.outcomes), 1))
    for one in found.outcomes:
        case = ET.SubElement(suite, "testcase", {"classname": "gate", "name": legal(one.name), "time": share})
        line = legal(gate_words.line(one))
        if one.blocks:
            failure = ET.SubElement(case, "failure", {"type": one.status.replace(" ", "-"), "message": line})
            failure.text = "\n".join(legal(f"{part.measure}: {gate_words.check(part)}") for part in one.checks)
        elif one.status != "passed":
            ET.SubElement(case, "skipped", {"message": line})
        else:
            ET.SubElement(case, "system-out").text = line
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def legal(text: str) -> str:
    """Text without what XML cannot hold.

    >>> legal("a\\x00b\\x1b[31mc")
    'ab[31mc'
    """
    return _ILLEGAL.sub("", text)


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"
