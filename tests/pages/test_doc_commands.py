"""Every command and snippet of every page runs, in the page's order, in a repo of the reader's own."""

import shutil
from pathlib import Path

import doc_setup
import pytest
from doc_blocks import PAGES, REPO, RUN, Block, blocks
from doc_host import Host, host
from doc_shell import Reader, run_buildroot

README = REPO / "README.md"
WITH_BLOCKS = [page for page in PAGES if any(b.language in RUN and not b.reason for b in blocks(page))]


@pytest.fixture(scope="session")
def built(host: Host, tmp_path_factory) -> Path:
    """The repo of a page that does not write its own, built."""
    root = tmp_path_factory.mktemp("built") / "root"
    reader = Reader(host, root, [])
    (reader.cwd / "SConstruct").write_text(doc_setup.SCONSTRUCT)
    doc_setup.write_models(reader.cwd, doc_setup.SCONSTRUCT)
    reader.run("scons -Q engines", "the repo of the pages", cwd=reader.cwd)
    return reader.cwd


def fill(reader: Reader, built: Path) -> None:
    shutil.rmtree(reader.cwd)
    shutil.copytree(built, reader.cwd, symlinks=True)


@pytest.mark.parametrize("page", [page for page in WITH_BLOCKS if page != README], ids=lambda p: p.stem)
def test_the_page_runs(page: Path, host: Host, built: Path, tmp_path: Path) -> None:
    read(page, host, built, tmp_path)


def test_the_readme_runs(host: Host, built: Path, tmp_path: Path) -> None:
    read(README, host, built, tmp_path)


def read(page: Path, host: Host, built: Path, tmp_path: Path) -> None:
    found = blocks(page)
    reader = Reader(host, tmp_path / "page", found)
    if not any("env = Environment(" in block.text for block in found):
        fill(reader, built)
    reader.read()
    assert reader.ran == [block for block in found if block.language in RUN and block.reason is None]


MAKEFILES = sorted((REPO / "docs" / "examples").glob("buildroot/package/*/*.mk"))


@pytest.mark.parametrize("file", MAKEFILES, ids=lambda file: file.name)
def test_the_buildroot_package_builds_and_installs(file, host, built, tmp_path) -> None:
    reader = Reader(host, tmp_path / "buildroot", [])
    fill(reader, built)
    run_buildroot(reader, file.read_text(encoding="utf-8"), str(file.relative_to(REPO)))


def test_a_command_that_fails_fails_the_page(host: Host, tmp_path: Path) -> None:
    block = Block(REPO / "README.md", 1, "sh", "python -m scons_tensorrt --help", None)
    reader = Reader(host, tmp_path / "page", [block])
    reader.fresh["PATH"] = str(host.bin)
    with pytest.raises(AssertionError, match=r"README\.md:1: status 127"):
        reader.read()
