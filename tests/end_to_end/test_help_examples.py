"""Each line of the help of `scons-tensorrt` that shows a command, run as it is written, in a real tree."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oci_registry import OciRegistry
from trt_engines import add_engine

from conftest import CLEAN, REPO, Tree, make_model
from scons_tensorrt.cli import _parser

PROGRAM = Path(sys.executable).with_name("scons-tensorrt")
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the package is not installed in this Python")
for package in ("obstore", "distributed", "trustme", "cryptography", "shtab"):
    pytest.importorskip(package)
NO_GPU = 21  # the exit status of `check` where there is none
SERVERS = ("scheduler", "worker")
REGISTRY = ("push", "pull")
BUILD_SERVER = "tls://build-server:8786"  # of the examples


def parsers(parser):
    yield parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for each in action.choices.values():
                yield from parsers(each)


PARSERS = list(parsers(_parser("scons-tensorrt")))
EXAMPLES = [
    line.strip()
    for parser in PARSERS
    for line in re.findall(r"^  (scons-tensorrt .*)$", parser.format_help().partition("\nexamples:")[2], re.M)
]
WITH_JSON = [p.prog.partition(" ")[2] for p in PARSERS if "--json" in p._option_string_actions]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tree with all that the examples name: models, an engine, a signed manifest, a shared cache, keys,
    certificates."""
    tree = Tree(tmp_path_factory.mktemp("help") / "tree")
    make_model(tree.path("models/face.onnx"), shape=("n", 3, 224, 224), width=4)
    rename_input(tree.path("models/face.onnx"), "image")
    tree.path("engines.toml").write_text(
        '[engine.face]\nonnx = "models/face.onnx"\nshapes = { image = "1x3x224x224" }\n'
    )
    tree.write(
        """
        engines = env.EnginesFromFile("engines.toml")
        manifest = env.EngineManifest("dist/manifest.json", engines)
        env.InstallEngines(Dir("release").abspath, engines, manifest=manifest)
        """
    )
    for line in ("keygen keys/build.pem", "certificates certificates"):
        assert shell(tree, f"scons-tensorrt {line}").returncode == 0
    built = tree.scons(".", "STORE_MODE=write", "SIGNING_KEY=keys/build.pem", **settings(tree))
    assert built.status == 0, built.out
    tree.path("hardware").mkdir()
    tree.path("home/.zfunc").mkdir(parents=True)
    return tree


def rename_input(path, name):
    import onnx

    model = onnx.load(path)
    model.graph.input[0].name = name
    model.graph.node[0].input[0] = name
    onnx.save(model, path)


def settings(tree):
    return {
        "TRT_STORE": f"file://{tree.path('store')}",
        "TRT_STORE_SIGNING_KEY": str(tree.path("keys/build.pem")),
        "TRT_STORE_TRUSTED_KEYS": str(tree.path("keys/build.pem.pub")),
    }


def environment(tree, role="worker"):
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    more = {"PATH": path, "HOME": str(tree.path("home")), "PYTHONPATH": str(REPO / "site_scons")}
    certificates = str(tree.path(f"certificates/{role}"))
    return {**CLEAN, **more, **settings(tree), "TRT_DISPATCH_CERTIFICATES": certificates}


def shell(tree, line):
    env = environment(tree)
    return subprocess.run(["bash", "-c", line], cwd=tree.root, env=env, capture_output=True, text=True)


@pytest.fixture
def tree(made, tmp_path, request):
    """A copy of the tree, for one example; for `init` without what it writes."""
    copy = made.twin(tmp_path / "tree")
    if request.node.callspec.params["line"].startswith(("scons-tensorrt init", "init")):
        copy.path("SConstruct").unlink()
        copy.path("engines.toml").unlink()
    if "sensitivity" in request.node.callspec.params["line"]:  # of a network that is converted
        with copy.path("engines.toml").open("a") as declared:
            declared.write('precision = "fp16"\n')
        assert copy.scons("engines", **settings(copy)).status == 0
    if "export" in request.node.callspec.params["line"]:
        profiles = [{"image": [(1, 3, 224, 224)] * 3}]
        add_engine(copy.root, "engines/orin_nx", "models/face.onnx", profiles)
    if "keys/ci.pem.pub" in request.node.callspec.params["line"]:
        shutil.copy(copy.path("keys/build.pem.pub"), copy.path("keys/ci.pem.pub"))
    return copy


@pytest.mark.parametrize("line", [line for line in EXAMPLES if line.split()[1] not in SERVERS + REGISTRY])
def test_an_example_works_as_it_is_shown(tree, line):
    done = shell(tree, line)
    lacks = line.split()[1:3] == ["bom", "--check"]  # as no model card is declared
    status = NO_GPU if line.split()[1] == "check" else int(lacks)
    assert (done.returncode, done.stderr) == (status, ""), done.stderr or done.stdout


@pytest.mark.parametrize("line", [line for line in EXAMPLES if line.split()[1] in REGISTRY])
def test_an_example_of_a_registry_works_as_it_is_shown(tree, line, tmp_path):
    """On loopback, which has no TLS."""
    registry = OciRegistry(tmp_path / "registry")
    try:
        first = next(line for line in EXAMPLES if line.startswith("scons-tensorrt push"))
        for each in (first, line) if line.split()[1] == "pull" else (line,):
            done = shell(tree, re.sub("//[^/]+", f"//{registry.address}", each) + " --plain-http")
            assert (done.returncode, done.stderr) == (0, ""), done.stderr or done.stdout
    finally:
        registry.close()


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in EXAMPLES if line.split()[1] in SERVERS])
def test_an_example_of_a_server_works_as_it_is_shown(tree, line):
    """On free ports."""
    listen = "scons-tensorrt scheduler --listen tls://127.0.0.1:0"
    with Server(tree, listen, "scheduler") as scheduler:
        url = scheduler.wait_for("scheduler: tls://").split()[-1]
        if line.split()[1] == "worker":
            with Server(tree, line.replace(BUILD_SERVER, url), "worker") as worker:
                worker.wait_for("connected to")
        else:
            port = re.search(r":(\d+)$", line)
            free = line.replace(port[0], ":0") if port else f"{line} --listen tls://127.0.0.1:0"
            with Server(tree, free, "scheduler") as second:
                second.wait_for("scheduler: tls://")


class Server:
    """A command that runs until it is stopped."""

    def __init__(self, tree, line, role):
        self.log = tree.path(f"{role}{time.monotonic_ns()}.log")
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=tree.root,
                env=environment(tree, role),
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, words):
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if words in line:
                    return line
            time.sleep(0.05)
        raise AssertionError(f"no {words!r} in: {self.log.read_text()}")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def test_every_command_has_two_examples():
    leaves = [p.prog for p in PARSERS if not any(isinstance(a.choices, dict) for a in p._actions)]
    for prog in leaves:
        assert sum(line.startswith(f"{prog} ") or line == prog for line in EXAMPLES) >= 2, prog


# --json

ARGUMENTS = {
    "build": "",
    "name parse": "a__sm87_jp6.2_trt10.3_fp16.engine",
    "name build": "face",
    "verify": "engines",
    "bom": "dist/manifest.json",
    "check": "engines/face__sm80plus_cu13.0_rtx1.7_fp32.engine",
    "explain": "face",
    "sensitivity": "face --samples 1",
    "reproduce": "engines",
    "export epcontext": "out face",
    "export triton": "repository engines/orin_nx",
    "export deepstream": "nvinfer engines/orin_nx",
    "query dependents": "models/face.onnx",
    "query diff": "face",
    "query what-if": "--runtime rtx1.8",
}


def keys(data, prefix=""):
    """The paths of all keys, as docs/json.md writes them; below those that are open, none."""
    found = set()
    for name, value in data.items():
        found.add(f"{prefix}{name}")
        if name in OPEN:
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                found |= keys(each, f"{prefix}{name}.")
    return found


OPEN = ("receipt", "recipe", "recorded")  # explained elsewhere


@pytest.mark.parametrize("line", WITH_JSON)
def test_json_has_the_keys_that_are_documented(tree, line):
    done = shell(tree, f"scons-tensorrt {line} {ARGUMENTS.get(line, '')} --json")
    assert done.returncode == (NO_GPU if line == "check" else 0), done.stderr
    data = json.loads(done.stdout)
    page = (REPO / "docs/json.md").read_text()
    row = re.search(rf"^\| `{line}` \| (.*) \|$", page, re.M)
    assert row, f"docs/json.md has no row for {line}"
    if row[1].startswith("those of"):  # documented elsewhere
        return
    documented = set(re.findall(r"`([\w.]+)`", row[1]))
    assert keys(data) <= documented
