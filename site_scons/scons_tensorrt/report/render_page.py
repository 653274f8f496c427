"""Render the HTML page: one self-contained file that fetches nothing.

Templates escape all text. Control characters and bidirectional marks are shown as escapes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ..errors import one_line, plural
from . import networks, number_format, plots, timeline, verdict_and_changes

TEMPLATES = Path(__file__).parent / "templates"


def render(report: Mapping[str, Any]) -> Iterator[str]:
    """The page of a report that `collect` returned, in pieces."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    yield from (
        _environment()
        .get_template("page.html")
        .generate(
            report=report,
            run=report["run"],
            style=Markup(style),
            script=Markup(script),
            policy=_policy(style, script),
            view=verdict_and_changes,
            plots=plots,
            largest=max((each["size"] or 0 for each in report["engines"]), default=0),
            longest=max(
                (verdict_and_changes.compile_seconds(each) or 0 for each in report["engines"]), default=0
            ),
            chart=timeline.timeline(report),
            networks=networks.networks(report),
        )
    )
    yield "\n"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, finalize=_printable, undefined=StrictUndefined
    )
    environment.filters.update(
        {
            name: getattr(number_format, name)
            for name in "size duration count change moment profile figure".split()
        },
        plural=plural,
        breakable=_breakable,
        on_one_line=_on_one_line,
    )
    return environment


def _printable(value: Any) -> Any:
    """A value as a template prints it: None and False as nothing, text on one line."""
    if value is None or value is False:
        return ""
    return value if isinstance(value, Markup) else one_line(str(value))


def _breakable(name: str) -> Markup:
    """A long name that may wrap after `_` and `/`."""
    return Markup(re.sub(r"([_/]+)", r"\1<wbr>", str(escape(one_line(name)))))


def _on_one_line(html: Markup) -> Markup:
    """HTML without line breaks: script.js takes a line for one entry of a long list."""
    return Markup(html.replace("\n", " "))


def _policy(style: str, script: str) -> str:
    """A content security policy that fetches nothing and allows only this style and script."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
