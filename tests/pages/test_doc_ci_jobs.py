"""The jobs for GitHub and GitLab: their commands run in order, in fresh checkouts, with a cache."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import doc_setup
import pytest
from doc_blocks import REPO
from doc_host import Host, host
from doc_jobs import Service, run_github, run_gitlab

CI = REPO / "docs" / "examples" / "ci"
RUNNERS = {"github.yml": run_github, "gitlab.yml": run_gitlab}


@pytest.fixture
def service(host: Host, tmp_path: Path) -> Service:
    """A repo with three engines of two networks, and the wheel in `wheels/`."""
    repo = tmp_path / "repo"
    (repo / "models").mkdir(parents=True)
    (repo / "wheels").mkdir()
    shutil.copy(host.wheel, repo / "wheels")
    (repo / "SConstruct").write_text(doc_setup.SCONSTRUCT)
    doc_setup.write_models(repo, doc_setup.SCONSTRUCT)
    # setup-python, and the image python:3, have a `python`
    python = host.new_venv(tmp_path / "python") / "bin"
    return Service(tmp_path / "service", repo, host.environment(tmp_path / "home", python))


def test_every_job_is_run():
    assert {file.name for file in CI.iterdir()} == set(RUNNERS)


@pytest.mark.parametrize("name", RUNNERS)
def test_no_job_fills_the_cache_with_replaced_engines(name: str) -> None:
    commands = [line for line in (CI / name).read_text().splitlines() if "SCons -k engines" in line]
    assert commands
    assert all("CACHE_SIZE=0" in line for line in commands)


@pytest.mark.parametrize("name", RUNNERS)
@pytest.mark.slow
def test_a_job_builds_then_reuses_then_tells_what_failed(name: str, service: Service) -> None:
    service.top.mkdir()
    first = RUNNERS[name](CI / name, service)
    assert not first.failed, first.output
    assert "engines: 0 reused, 3 built, 0 failed" in first.output
    second = RUNNERS[name](CI / name, service)
    assert not second.failed, second.output
    assert "engines: 3 reused, 0 built, 0 failed" in second.output
    for job in (first, second):
        assert len(list(job.artifacts.glob("engines/*.engine"))) == 3
        assert (job.artifacts / ".trt/report/index.html").stat().st_size
        assert len(list(ElementTree.parse(job.artifacts / "engines.xml").iter("testcase"))) == 3

    (service.repo / "models" / "dinov2_vpr.onnx").write_bytes(b"no network")
    third = RUNNERS[name](CI / name, service)
    assert third.failed
    assert "engines: 2 reused, 0 built, 1 failed" in third.output
    assert len(list(ElementTree.parse(third.artifacts / "engines.xml").iter("failure"))) == 1
