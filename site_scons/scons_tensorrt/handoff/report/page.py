"""The page: one file, which asks no server for anything and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from . import builds, details, networks, tables, timeline, words
from .history import WORDS
from .html import Html, el, join
from .script import SCRIPT
from .style import STYLE

MOST_KINDS = 8  # of hardware, in the header
MOST_TOLD = 30  # of what needs attention; the table of engines has them all


def render(report: Mapping[str, Any]) -> str:
    """The page of a report, as `gather` makes it."""
    title = f"Engines of {report['tree']}"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_policy()),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
        el("style", Html(STYLE)),
    )
    body = el(
        "body",
        _header(report, title),
        el("main", _sections(report)),
        _footer(report),
        el("script", Html(SCRIPT)),
    )
    return "<!DOCTYPE html>\n" + el("html", head, body, lang="en") + "\n"


def _policy() -> str:
    """Nothing is fetched; the style and the script are these, whatever else may get into the page."""
    return (
        f"default-src 'none'; style-src '{_sum(STYLE)}'; script-src '{_sum(SCRIPT)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _sum(source: str) -> str:
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _header(report: Mapping[str, Any], title: str) -> Html:
    run = report["run"]
    when = words.moment(run["started"]) if run["run"] else "no run is on record"
    took = f", {words.duration(run['seconds'])}" if run["run"] else ""
    return el(
        "header",
        el("h1", title),
        el("p", f"Build of {when}{took}", None if run["whole"] else _cut_short(run), class_="soft"),
        _hardware(report),
        _verdict(report),
        _tiles(report),
    )


def _hardware(report: Mapping[str, Any]) -> Html | None:
    """What the engines are for."""
    kinds = tables.hardware(report)
    if not kinds:
        return None
    more = f", and {len(kinds) - MOST_KINDS} more" if len(kinds) > MOST_KINDS else ""
    return el("p", f"For {'; '.join(kinds[:MOST_KINDS])}{more}", class_="soft")


def _cut_short(run: Mapping[str, Any]) -> str | None:
    return " (it did not come to its end)" if run["run"] else None


def _verdict(report: Mapping[str, Any]) -> Html:
    """One sentence that a person who reads no further can act on."""
    engines = report["engines"]
    failed = [each for each in engines if each["outcome"] == "failed"]
    unfit = [each for each in engines if each["on_disk"] != "intact" and each not in failed]
    tampered = [each for each in engines if each["integrity"]]
    of = words.plural(len(engines), "engine")
    if failed or unfit:
        counts = {"failed": len(failed), "missing or damaged": len(unfit)}
        text = f"{' and '.join(f'{n} {what}' for what, n in counts.items() if n)} of {of}"
        more = "Do not release this set; what to do stands below."
        return _banner("bad", "✗", text, more)
    if not engines:
        return _banner("careful", "!", "No engine is declared", "There is nothing to release.")
    if tampered:
        text = f"All {of} intact; {len(tampered)} had been altered and replaced"
        return _banner("careful", "!", text, "Find out who altered it: see below.")
    unknown = sum(each["receipt"] is None for each in engines)
    if unknown:
        text = f"All {of} intact, of {unknown} no receipt says what they were made from"
        return _banner("careful", "!", text, "Run scons engines: it makes those again.")
    return _banner("good", "✓", f"All {of} intact", "Each file is what its checksum and receipt say.")


def _banner(kind: str, sign: str, text: str, more: str) -> Html:
    mark = el("span", sign, class_="sign", aria_hidden="true")
    return el("div", mark, el("div", text, el("small", more)), class_=f"verdict {kind}", role="status")


def _tiles(report: Mapping[str, Any]) -> Html:
    run, engines = report["run"], report["engines"]
    sizes = [each["size"] for each in engines if each["size"] is not None]
    compiled = [each["compile_s"] for each in engines if each["compile_s"] is not None]
    tiles = [
        *((str(run[w]), w) for w in WORDS if run[w] or w in tables.ALWAYS),
        (words.size(sum(sizes)), "on disk"),
        (words.duration(sum(compiled)) if compiled else words.NONE, "compiling, all together"),
        (words.duration(run["seconds"]), "from start to end"),
    ]
    return el(
        "ul", [el("li", el("b", value), el("span", label)) for value, label in tiles], class_="tiles"
    )


def _sections(report: Mapping[str, Any]) -> Iterator[Html]:
    told = list(_attention(report))
    if told:
        left = len(told) - MOST_TOLD
        more = el("p", f"And {left} more: see the table of engines.") if left > 0 else None
        listed = el("ul", told[:MOST_TOLD], class_="attention")
        yield _section("attention", "What needs attention", listed, more)
    chart = timeline.timeline(report)
    if chart:
        yield _section("timeline", "Timeline of the build", chart)
    if report["engines"]:
        yield _section("engines", "Engines", tables.engines(report))
    if report["runs"]:
        yield _section("history", "Builds so far", builds.runs(report))
    if report["networks"]:
        yield _section("networks", "Networks", networks.networks(report))
    if report["engines"]:
        yield _section("details", "Each engine in full", details.engines(report))


def _section(name: str, title: str, *content: Any) -> Html:
    heading = f"{name}-title"
    return el("section", el("h2", title, id=heading), *content, id=name, aria_labelledby=heading)


def _attention(report: Mapping[str, Any]) -> Iterator[Html]:
    numbered = enumerate(report["engines"])
    for index, each in sorted(numbered, key=lambda pair: pair[1]["outcome"] != "failed"):
        link = el("a", each["engine"], href=f"#e{index}")
        if each["outcome"] == "failed":
            why = f"{each['error_class'] or 'Failed'}: {each['reason']}"
            yield el("li", el("b", "Failed: "), link, el("div", why))
        elif each["on_disk"] == "missing":
            why = "the run did not come to it" if each["outcome"] == "none" else each["fault"]
            yield el("li", el("b", "Missing: "), link, el("div", f"{why}; run scons engines"))
        elif each["on_disk"] != "intact":
            fix = "run scons engines: it makes this pair alone again"
            yield el("li", el("b", "Damaged: "), link, el("div", f"{each['fault']}; {fix}"))
        elif each["integrity"]:
            again = " and replaced" if each["outcome"] not in ("none", "failed") else ""
            yield el("li", el("b", f"Altered{again}: "), link, el("div", each["reason"]), class_="w")
    for step in (each for each in report["steps_failed"] if "fails" not in each):  # else told
        why = f"{step['error_class']}: {step['reason']}"
        yield el("li", el("b", "Failed step: "), step["step"], el("div", why))


def _footer(report: Mapping[str, Any]) -> Html:
    version = report["generator"]["scons_tensorrt"]
    made = f"Made by scons-tensorrt {version} on {words.moment(report['generated'])}"
    run = f", run {report['run']['run']}" if report["run"]["run"] else ""
    same = join((". The same for machines: ", el("a", "report.json", href="report.json"), "."))
    return el("footer", el("p", made, run, same))
