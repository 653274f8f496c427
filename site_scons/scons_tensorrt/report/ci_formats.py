"""The report for CI: JUnit XML, GitHub annotations and step summary."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import one_line
from .engine_data import FIT
from .number_format import duration, size
from .verdict_and_changes import counts

MAX_ROWS = 200  # of a step summary, which GitHub limits to 1 MiB
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def unfit(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The engines that failed, are missing or are damaged."""
    return [e for e in report["engines"] if e["outcome"] == "failed" or e["on_disk"] not in FIT]


def what_is_wrong(engine: Mapping[str, Any]) -> str:
    """Why an engine is unfit, as text."""
    if engine["outcome"] == "failed":
        return f"{engine['error_class'] or 'EngineError'}: {engine['reason']}"
    return f"{engine['fault']}; run scons engines"


def junit(report: Mapping[str, Any]) -> bytes:
    """One test case per engine: failed, skipped if the run did not reach it, or passed.

    Times are those of the run's action, in seconds.
    """
    engines, run = report["engines"], report["run"]
    bad = {each["engine"] for each in unfit(report)}
    skipped = [e for e in engines if e["outcome"] == "none" and e["engine"] not in bad]
    suite = ET.Element(
        "testsuite",
        name="engines",
        tests=str(len(engines)),
        failures=str(len(bad)),
        errors="0",
        skipped=str(len(skipped)),
        time=f"{run['seconds']:.3f}",
        timestamp=run["started"].removesuffix("Z"),
    )
    for engine in engines:
        folder, _, name = engine["engine"].rpartition("/")
        case = ET.SubElement(
            suite,
            "testcase",
            classname=_xml(folder.replace("/", ".") or "engines"),
            name=_xml(name),
            time=f"{engine['seconds'] or 0:.3f}",
        )
        if engine["engine"] in bad:
            message = _xml(what_is_wrong(engine))
            kind = engine["error_class"] or engine["on_disk"]
            failure = ET.SubElement(case, "failure", message=message, type=_xml(kind))
            failure.text = _xml(f"{message}\nmade from {engine['source']}")
        elif engine["outcome"] == "none":
            ET.SubElement(case, "skipped", message=_xml(engine["reason"]))
        else:
            output = f"{engine['outcome']}: {engine['reason']}\nsha256 {engine['sha256']}"
            ET.SubElement(case, "system-out").text = _xml(output)
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return bytes(ET.tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"


def _xml(text: str) -> str:
    """`text` with the characters that XML 1.0 does not allow replaced."""
    return _NOT_XML.sub("?", text)


def github(report: Mapping[str, Any]) -> Iterator[str]:
    """GitHub workflow commands, at the lines that declare the engines: an error per unfit engine, a warning
    per engine that was altered and replaced, and a notice with the counts. GitHub shows the first ten of
    each."""
    for engine in unfit(report):
        yield _command(
            "error", engine, f"Engine {engine['name']}", f"{engine['engine']}: {what_is_wrong(engine)}"
        )
    for engine in report["engines"]:
        if engine["integrity"] and engine["outcome"] in ("built", "fetched", "dispatched"):
            text = f"{engine['engine']} was replaced: {engine['reason']}"
            yield _command("warning", engine, f"Engine {engine['name']} was altered", text)
    yield f"::notice title=Engines::{_data(_counts(report))}"


def _counts(report: Mapping[str, Any]) -> str:
    return f"{counts(report['run'])} in {duration(report['run']['seconds'])}"


def _command(kind: str, engine: Mapping[str, Any], title: str, text: str) -> str:
    file, _, line = (engine["place"] or f"{engine['source']}:").rpartition(":")  # else the ONNX
    at = ""
    if file and not file.startswith(("/", ".")):
        at = f"file={_property(file)},{f'line={line},' if line.isdecimal() else ''}"
    return f"::{kind} {at}title={_property(title)}::{_data(text)}"


def annotation(problem: str) -> str:
    """The workflow command for an error that begins with FILE:LINE, if it does."""
    found = re.match(r"([^:\s]+):(\d+): (.*)", problem)
    if found is None:
        return f"::error title=Engines::{_data(problem)}"
    return f"::error file={_property(found[1])},line={found[2]},title=Engines::{_data(found[3])}"


def _data(text: str) -> str:
    """The message of a workflow command, escaped and on one line."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return one_line(escaped)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def step_summary(report: Mapping[str, Any], path: str | None) -> None:
    """Append a table to the step summary file at `path`, if any. Raises OSError."""
    if not path:
        return
    rows = [
        f"| {_markdown(e['engine'])} | {e['outcome']} | {size(e['size'])} | {_markdown(_reason(e))} |"
        for e in report["engines"][:MAX_ROWS]
    ]
    more = len(report["engines"]) - len(rows)
    lines = [f"### Engines: {_counts(report)}", "", "| engine | outcome | size | reason |"]
    lines += ["| --- | --- | ---: | --- |", *rows]
    lines += [f"\nand {more} more"] if more else []
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    with open(os.open(path, flags, 0o666), "a", encoding="utf-8", errors="replace") as out:
        out.write("\n".join(lines) + "\n")


def _reason(engine: Mapping[str, Any]) -> str:
    if engine["outcome"] == "failed" or engine["on_disk"] not in FIT:
        return what_is_wrong(engine)
    return str(engine["reason"])


def _markdown(text: str) -> str:
    """Text in a table cell, with Markdown and HTML escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&@:-])", r"\\\1", one_line(text))
