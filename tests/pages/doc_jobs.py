"""Runs the jobs of `.github/workflows/*.yml` and `.gitlab-ci.yml`, as much of them as the examples use.

What it does not know it refuses. Commands are run for real, in order, in a fresh checkout; the
services' own parts (checkout, interpreter, cache, artifacts) are played with folders.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# Inputs of the actions that are known here, and whether each is required.
ACTIONS = {
    "actions/checkout@v4": {},
    "actions/setup-python@v5": {"python-version": True},
    "actions/cache/restore@v4": {"path": True, "key": True, "restore-keys": False},
    "actions/cache/save@v4": {"path": True, "key": True},
    "actions/upload-artifact@v4": {"name": True, "path": True, "include-hidden-files": False},
}
STEP = {"uses", "with", "run", "if", "name"}
GITHUB = {"name", "on", "jobs"}
GITHUB_JOB = {"runs-on", "steps"}
GITLAB_JOB = {"image", "cache", "script", "after_script", "artifacts"}


@dataclass
class Service:
    """A service with a repo, a cache and artifacts. environment: of the machine that runs a job."""

    top: Path
    repo: Path
    environment: dict[str, str]
    runs: int = 0

    @property
    def cache(self) -> Path:
        return self.top / "cache"


@dataclass
class Job:
    """One run of a job. checkout: its folder, which a step makes. steps: commands, with their status."""

    service: Service
    checkout: Path
    artifacts: Path
    values: dict[str, str]
    output: str = ""
    failed: bool = False
    steps: list[tuple[str, int]] = field(default_factory=list)

    def shell(self, commands: str) -> int:
        """GitHub's `bash -e`, and near enough to GitLab's shell."""
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-c", commands],
            cwd=self.checkout,
            env=self.service.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.output += done.stdout
        self.steps.append((commands.strip(), done.returncode))
        self.failed = self.failed or done.returncode != 0
        return done.returncode

    def save(self, key: str, paths: list[str]) -> None:
        for path in paths:
            if (self.checkout / path).exists():
                shutil.copytree(self.checkout / path, self.service.cache / key / path, symlinks=True)

    def restore(self, key: str) -> None:
        shutil.copytree(self.service.cache / key, self.checkout, symlinks=True, dirs_exist_ok=True)

    def upload(self, paths: list[str], hidden: bool) -> None:
        for path in paths:
            source, target = self.checkout / path, self.artifacts / path
            if not source.exists() or (not hidden and any(p.startswith(".") for p in Path(path).parts)):
                continue  # a warning of the service
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def new_job(service: Service) -> Job:
    service.runs += 1
    folder = service.top / f"run{service.runs}"
    values = {"github.run_id": str(1000 + service.runs), "github.run_attempt": "1"}
    (folder / "artifacts").mkdir(parents=True)
    service.cache.mkdir(exist_ok=True)
    return Job(service, folder / "checkout", folder / "artifacts", values)


def run_github(file: Path, service: Service) -> Job:
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    workflow = {"on" if key is True else key: value for key, value in workflow.items()}  # YAML 1.1
    assert set(workflow) == GITHUB
    ((_, content),) = workflow["jobs"].items()
    assert set(content) == GITHUB_JOB
    job = new_job(service)
    job.service.environment["GITHUB_STEP_SUMMARY"] = str(job.artifacts.parent / "summary.md")
    for step in content["steps"]:
        assert set(step) <= STEP, step
        assert ("uses" in step) != ("run" in step), step
        if _is_run(step.get("if"), job.failed):
            _github_step(job, step)
    return job


def _is_run(condition: str | None, failed: bool) -> bool:
    if condition is None:
        return not failed
    assert re.fullmatch(r"\$\{\{ (!cancelled\(\)|always\(\)) \}\}", condition), condition
    return True


def _github_step(job: Job, step: dict[str, Any]) -> None:
    if "run" in step:
        job.shell(_expand(job, step["run"]))
        return
    action, given = step["uses"], step.get("with", {})
    inputs = ACTIONS[action]
    assert {name for name, required in inputs.items() if required} <= set(given) <= set(inputs), step
    words = {name: _expand(job, str(value)) for name, value in given.items()}
    paths = words.get("path", "").split()
    if action.startswith("actions/checkout"):
        shutil.copytree(job.service.repo, job.checkout)
    elif action.startswith("actions/setup-python"):
        assert isinstance(given["python-version"], str), "3.10 would be 3.1"
    elif action.startswith("actions/cache/restore"):
        _github_restore(job, [words["key"], *words.get("restore-keys", "").split()])
    elif action.startswith("actions/cache/save"):
        job.save(words["key"], paths)
    else:
        job.upload(paths, words.get("include-hidden-files", "False").lower() == "true")


def _github_restore(job: Job, keys: list[str]) -> None:
    for key in keys:
        found = [p for p in job.service.cache.iterdir() if p.name.startswith(key)]
        if found:
            job.restore(max(found, key=lambda p: (p.name == key, p.stat().st_ctime_ns)).name)
            return


def _expand(job: Job, text: str) -> str:
    return re.sub(r"\$\{\{ ([\w.]+) \}\}", lambda match: job.values[match[1]], text)


def run_gitlab(file: Path, service: Service) -> Job:
    ((_, content),) = yaml.safe_load(file.read_text(encoding="utf-8")).items()
    assert set(content) == GITLAB_JOB
    cache, artifacts = content["cache"], content["artifacts"]
    assert set(cache) == {"key", "paths", "when"}
    assert set(artifacts) == {"when", "paths", "reports"}
    assert set(artifacts["reports"]) == {"junit"}
    assert content["image"].startswith("python:3.")
    job = new_job(service)
    shutil.copytree(service.repo, job.checkout)
    if (service.cache / cache["key"]).exists():
        job.restore(cache["key"])
    job.shell("\n".join(content["script"]))
    job.shell("\n".join(content["after_script"]))  # a shell of its own, also after a failure
    if cache["when"] == "always" or not job.failed:
        shutil.rmtree(service.cache / cache["key"], ignore_errors=True)
        job.save(cache["key"], cache["paths"])
    if artifacts["when"] == "always" or not job.failed:
        job.upload([*artifacts["paths"], artifacts["reports"]["junit"]], hidden=True)
    return job
