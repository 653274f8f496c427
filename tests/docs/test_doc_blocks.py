"""Each block of a page has a language that says how it is run, or a reason why it is not."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from doc_blocks import PAGES, REPO, RUN, SHOWN, blocks, inline

from scons_tensorrt import cli

BLOCKS = [block for page in PAGES for block in blocks(page)]
NOT_RUN = [block for block in BLOCKS if block.reason is not None]
SHELL = [block for block in BLOCKS if block.language in ("sh", "console")]
COMMAND = re.compile(r"^\s*(\$ |(scons|python3?|pip3?|pytest|mkdir|cp|cd|git|docker) +[\w.'\"/~-])", re.M)
# Debian has no `python`, and its `pip` installs nothing outside of a virtual environment.
BARE = re.compile(r"(?:^|[\s;&|(`])(?<!-m )(python|pip3?)\s+-?\w", re.M)
EXAMPLES = REPO / "docs" / "examples"
# Files of docs/examples that no test runs; those of tests/pages and tests/end_to_end run the others.
RUN_EXAMPLES = re.compile(
    r"ci/\w+\.yml|buildroot/package/.*\.mk|own-repo/SConstruct|updates/.*|check_engine\.cpp"
)
NOT_RUN_EXAMPLES = {
    "buildroot/Config.in": "needs Buildroot",
    "buildroot/external.desc": "needs Buildroot",
    "buildroot/external.mk": "needs Buildroot",
    "buildroot/package/drone-engines/Config.in": "needs Buildroot",
    "own-repo/.gitignore": "nothing to run",
    "yocto/conf/layer.conf": "needs BitBake",
    "yocto/recipes-engines/drone-engines/drone-engines_1.0.bb": "needs BitBake",
    "yocto/recipes-engines/python/python3-scons-tensorrt_0.1.0.bb": "needs BitBake",
}


def place(block):
    return block.place


def test_there_are_blocks_of_every_kind_to_run():
    assert {block.language for block in BLOCKS if block.reason is None} == {*RUN, *SHOWN}


@pytest.mark.parametrize("block", BLOCKS, ids=place)
def test_each_block_is_run_or_shown_or_says_why_not(block):
    assert block.reason != ""
    if block.reason is None:
        assert block.language in (*RUN, *SHOWN), "name the language, or write <!-- not run: why --> above"
    if block.language in SHOWN:
        assert not COMMAND.search(block.text), "commands belong into a block `sh` or `console`"
    if block.language == "console":
        assert block.commands(), "commands of a block `console` begin with `$ `"


@pytest.mark.parametrize("block", NOT_RUN, ids=place)
def test_what_is_not_run_is_well_formed(block):
    if block.language in ("sh", "console"):
        done = subprocess.run(["bash", "-n"], input=block.commands(), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        for path in re.findall(r"\b(?:tests|benchmarks|models)/[\w/.]+", block.text):
            assert (REPO / path).exists(), path
    elif block.language == "python":
        ast.parse(block.text)


def test_no_command_needs_a_python_or_a_pip_that_debian_has_not():
    texts = {block.place: block.commands() for block in SHELL}
    texts |= {f"{page.name}: {span}": span for page in PAGES for span in inline(page)}
    assert not [where for where, text in texts.items() if BARE.search(text)]


def test_nothing_is_installed_from_an_index_that_does_not_have_it():
    """It is not published: who asks an index for it gets nothing, or a stranger's package."""
    files = [*PAGES, *EXAMPLES.rglob("*"), *(REPO / "site_scons").rglob("*.py")]
    texts = {str(path): path.read_text(encoding="utf-8") for path in files if path.is_file()}
    texts |= {f"{page.name}: {span}": span for page in PAGES for span in inline(page)}
    asks = re.compile(r"pip3? install[^`\n]*[ '\"]scons[-_]tensorrt(?![\w.-]*\.whl)")
    assert asks.search("pip install 'scons-tensorrt[store]'")
    assert asks.search("pip install scons-tensorrt.whl'[rtx]'") is None  # test_doc_ci_jobs.py finds that
    assert not [where for where, text in texts.items() if asks.search(text)]


def calls(text):
    """Arguments of `python3 -m scons_tensorrt` or `scons-tensorrt` in a text of shell."""
    lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        for part in re.findall(r"(?:python3? -m scons_tensorrt|\bscons-tensorrt)(?= |$)([^|;&>]*)", line):
            yield shlex.split(part, comments=True)


def spans():
    for page in PAGES:
        for span in inline(page):
            if not re.search(r"[…\[|]", span):
                yield page.name, span
    for block in SHELL:
        yield block.place, block.commands()


def test_every_command_line_of_ours_is_one_that_we_take():
    """Those in running text and in blocks that are not run, too."""
    seen, wrong = 0, []
    for where, text in spans():
        for arguments in calls(text):
            seen += 1
            try:
                if arguments:
                    cli._parser().parse_args(arguments)
            except SystemExit as end:
                if end.code:
                    wrong.append((where, arguments))
    assert seen > 15
    assert not wrong


def test_every_example_is_run_or_says_why_not():
    files = {str(p.relative_to(EXAMPLES)) for p in EXAMPLES.rglob("*") if p.is_file()}
    assert {f for f in files if not RUN_EXAMPLES.fullmatch(f)} == set(NOT_RUN_EXAMPLES)


def test_a_block_without_a_language_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n\n<!-- not run: needs a board -->\n```sh\nflash\n```\n\n1. x\n\n   ```\n   $ ls\n   ```\n"
    )
    first, second = blocks(page)
    assert (first.language, first.reason, first.text) == ("sh", "needs a board", "flash\n")
    assert (second.language, second.reason, second.text) == ("", None, "$ ls\n")
