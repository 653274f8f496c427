"""The pages are held against the code: variables, commands, classes, quoted messages, links."""

import ast
import re
from pathlib import Path

import pytest

import scons_tensorrt
from scons_tensorrt import cli, errors
from scons_tensorrt.build.tensorrt_errors import REFUSALS

PACKAGE = Path(scons_tensorrt.__file__).parent
REPO = Path(__file__).parents[2]
DOCS = REPO / "docs"
PAGES = sorted(DOCS.glob("*.md"))
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")


def sources():
    return {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def texts():
    """Every string in the code, with what is filled in as `…`."""
    found = []
    for text in sources().values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(parts))
    return found


def variables():
    """The construction variables with a default, by name; scons_tool/ needs SCons, so they are read."""
    found = set()
    for path in (PACKAGE / "scons_tool").glob("*settings.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and node.targets[0].id == "VARIABLES":
                found |= {key.value for key in node.value.keys}
    return found


def test_every_variable_stands_in_the_reference():
    assert {"TRT_HARDWARE", "TRT_STORE", "TRT_DISPATCH"} <= variables()
    missing = {name for name in variables() if f"`{name}`" not in REFERENCE}
    assert not missing


def test_every_variable_of_the_reference_is_in_the_code():
    code = "\n".join(sources().values())
    told = set(re.findall(r"`(TRT_[A-Z_]+)`", REFERENCE))
    assert len(told) > 8
    # settings.py reads an argument HARDWARE= and a variable TRT_HARDWARE by one name
    assert not {name for name in told if name not in code and name.removeprefix("TRT_") not in code}


def test_every_command_stands_in_the_reference():
    (choices,) = (a.choices for a in cli._parser()._actions if isinstance(a.choices, dict))
    assert {"verify", "worker"} <= set(choices)
    assert not {name for name in choices if f"`{name}" not in REFERENCE}


def test_every_error_class_stands_in_the_reference():
    classes = {n for n, c in vars(errors).items() if isinstance(c, type) and n != "EngineError"}
    assert not {name for name in classes if f"`{name}`" not in REFERENCE}


def test_every_page_is_listed_in_the_readme():
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in PAGES if f"docs/{page.name}" not in readme]


@pytest.mark.parametrize(
    "page", [REPO / "README.md", REPO / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]
    if page.parent == DOCS:  # the strict build of the site refuses other pages
        assert not [link for link in links if link.startswith("../")]


@pytest.mark.parametrize("page", [DOCS / "architecture.md", REPO / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_paths_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./-]+(?:/|\.(?:py|json|md)))`", text))
    named |= set(re.findall(r"\b((?:tests|docs)/[\w./]+\.py)\b", text))
    assert len(named) > 20
    assert not [name for name in named if not ((PACKAGE / name).exists() or (REPO / name).exists())]


def quoted():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| (.*?) \|", text, re.M):
        yield from re.findall(r"`([^`]+)`", row)


def test_quoted_messages_are_in_the_code():
    known = texts()
    stale = []
    for message in quoted():
        words = re.sub(r"^[A-Za-z]+(Error|Timeout): ", "", message)
        pieces = [re.sub(r"^because ", "", part).strip() for part in words.split("…")]
        longest = max(pieces, key=len).strip(" ;,():→")
        if len(longest) > 4 and not any(longest in text for text in known):
            stale.append((message, longest))
    assert len(list(quoted())) > 25
    assert not stale


def test_every_advice_about_a_refusal_stands_on_its_page():
    page = (REPO / "docs" / "prepare.md").read_text(encoding="utf-8")
    for each in REFUSALS:
        advice = each.advice[0].upper() + each.advice[1:]
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {advice} |"))
        assert ("RTX 1.7" in row) == each.seen
        assert all(f"[{issue}](" in row for issue in each.issues)
