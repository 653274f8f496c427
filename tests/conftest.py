"""A small vocabulary for tests that drive real scons in real temporary trees, and which cases run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from boards import JETSON
from filelock import FileLock
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("gpu_host")  # a plugin of tests/gpu, whose modules import it first

HERE = Path(__file__).parent
REPO = HERE.parent
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("TRT_", "SCONS")) and name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "CI")
}
HEADER = """
DefaultEnvironment(tools=[])
env = Environment(tools=["trt_engines"], toolpath=[PyPackageDir("scons_tensorrt.tools")])
"""


SAMPLE_EXAMPLES = 20  # of Hypothesis for each property; 100 in a whole run
SAMPLED = ("cache", "cpp", "end_to_end", "faults", "pages")  # whose tests drive scons or a compiler


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-cases", action="store_true", help="run slow tests, and every case of each test")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: left out of a run of all tests, without --all-cases")
    # Read when @given is, so before the tests are imported. On a busy machine no test fails for its time.
    examples = SAMPLE_EXAMPLES if _samples(config) else settings.default.max_examples
    slow = [HealthCheck.too_slow]
    settings.register_profile("tests", max_examples=examples, deadline=None, suppress_health_check=slow)
    settings.load_profile("tests")


def _samples(config: pytest.Config) -> bool:
    """Whether this is a run of all tests, without --all-cases. Tests that are named, by file, node ID or
    -k, run whole."""
    named = config.option.keyword or any(not Path(name).is_dir() for name in config.args)
    return not (named or config.getoption("--all-cases"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a run of all tests, leave out slow ones, and all but one case of each test that drives scons: the
    same each time."""
    if not _samples(config):
        return
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        name = item.nodeid if Path(item.path).parent.name not in SAMPLED else item.nodeid.split("[")[0]
        families.setdefault(name, []).append(item)
    kept = [cases[zlib.crc32(name.encode()) % len(cases)] for name, cases in families.items()]
    chosen = {item for item in kept if not item.get_closest_marker("slow")}
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


@dataclass
class Run:
    """What a scons said. out: both streams, as a person sees them."""

    out: str
    status: int

    def lines(self, word: str) -> list[str]:
        return [line for line in self.out.splitlines() if line.startswith(word + " ")]

    def names(self, word: str) -> list[str]:
        """Model names of the lines that begin with `word`, sorted."""
        found = [re.search(r"([^/ ]+?)__\S+\.engine", line) for line in self.lines(word)]
        return sorted(match[1] for match in found if match)

    @property
    def built(self) -> list[str]:
        return self.names("BUILT")

    @property
    def reused(self) -> list[str]:
        return self.names("REUSED")

    @property
    def failed(self) -> list[str]:
        return self.names("FAILED")

    @property
    def summary(self) -> str:
        return self.out.rstrip().splitlines()[-1]

    def reason(self, name: str) -> str:
        """Why `name` was built, or failed."""
        for line in self.out.splitlines():
            match = re.match(r"(?:BUILT|WOULD BUILD) (\S.*?)(?: \([\d.]+ s\))? because (.*)", line)
            if match and f"{name}__" in match[1]:
                return match[2]
            match = re.match(r"(?:WOULD FAIL|FAILED) (\S.*?\.engine): (?:\S+:\d+: )?(.*)", line)
            if match and f"{name}__" in match[1]:
                return match[2]
        raise AssertionError(f"no reason for {name} in:\n{self.out}")


@dataclass
class Command:
    """What a command of `scons-tensorrt` printed, and its exit status."""

    out: str
    err: str
    status: int


class Tree:
    """A tree with a SConstruct. environment: added to every run's, which print REUSED lines."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment: dict[str, str] = {}
        (root / "models").mkdir(parents=True)

    def path(self, name: str) -> Path:
        return self.root / name

    def write(self, text: str, name: str = "SConstruct", header: str = HEADER) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + textwrap.dedent(text), encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "SCons", *arguments]

    def env(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join([str(REPO / "site_scons")])
        return {**CLEAN, "PYTHONPATH": path, "TRT_VERBOSE": "1", **self.environment, **more}

    def scons(self, *arguments: str, cwd: Path | None = None, **environment: str) -> Run:
        done = subprocess.run(
            self.command(*(arguments or ("engines",))),
            cwd=cwd or self.root,
            env=self.env(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=180,
            check=False,
        )
        run = Run(done.stdout.decode("utf-8"), done.returncode)
        assert "Traceback" not in run.out, run.out
        return run

    def cli(self, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> Command:
        """A command of `scons-tensorrt`, as installed in this Python."""
        program = Path(sys.executable).with_name("scons-tensorrt")
        command = [program] if program.exists() else [sys.executable, "-m", "scons_tensorrt"]
        done = subprocess.run(
            [*command, *arguments],
            cwd=cwd or self.root,
            env=self.env(**environment),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr
        return Command(done.stdout, done.stderr, done.returncode)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*(arguments or ("engines",))),
            cwd=self.root,
            env=self.env(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def engines(self, folder: str = "engines") -> dict[str, Path]:
        """Engines below a folder by model name."""
        return {p.name.split("__")[0]: p for p in sorted(self.path(folder).rglob("*.engine"))}

    def engine(self, name: str) -> Path:
        return self.engines()[name]

    def sidecar(self, name: str) -> Path:
        return Path(f"{self.engine(name)}.sha256")

    def receipt(self, name: str) -> dict:
        """The receipt of the engine that is there."""
        digest = sha256(self.engine(name))
        for path in self.path(".trt/receipts").glob(f"{name}__*/*.json"):
            data = json.loads(path.read_text())
            if data["sha256"] == digest:
                return data
        raise AssertionError(f"no receipt of {name}")

    def events(self) -> list[dict]:
        text = self.path(".trt/events.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def snapshot(self, *folders: str) -> dict[str, tuple[str, int]]:
        """Every file's bytes and mtime."""
        return {
            str(path.relative_to(self.root)): (sha256(path), path.stat().st_mtime_ns)
            for folder in folders or ("engines",)
            for path in sorted(self.path(folder).rglob("*"))
            if path.is_file()
        }

    def copy(self, root: Path, *names: str) -> Tree:
        """A second clone: the files `names`, with new stats and no memo's trust in them."""
        root.mkdir(parents=True)
        subprocess.run(["cp", "-r", *(str(self.path(n)) for n in names), str(root)], check=True)
        return Tree.at(root, self.environment)

    def twin(self, root: Path) -> Tree:
        """All of it once more, times too: a test that begins with built engines needs no compile."""
        subprocess.run(["cp", "-a", str(self.root), str(root)], check=True)
        return Tree.at(root, self.environment)

    @staticmethod
    def at(root: Path, environment: dict[str, str]) -> Tree:
        """The tree that is there."""
        other = Tree.__new__(Tree)
        other.root, other.environment = root, dict(environment)
        return other


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sound(engine: Path) -> bool:
    """Whether the pair is whole: a plan whose header promises its size, and its sidecar."""
    data = engine.read_bytes()
    whole = data[:4] == b"vtrt" and int.from_bytes(data[16:24], "little") == len(data)
    return whole and Path(f"{engine}.sha256").read_text() == hashlib.sha256(data).hexdigest()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty tree; a test says `tree.write(...)` and makes models."""
    return Tree(tmp_path / "tree")


@pytest.fixture
def two(tree: Tree) -> Tree:
    """A tree with two engines, `a` and `b`, of static shape."""
    return make_two(tree)


def make_two(tree: Tree) -> Tree:
    """Declare two engines, `a` and `b`, of static shape."""
    make_model(tree.path("models/a.onnx"), seed=1)
    make_model(tree.path("models/b.onnx"), seed=2)
    tree.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Engine("b", "models/b.onnx")
        """
    )
    return tree


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """once(name, fill): a folder that `fill` fills once for all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    top = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"

    def made(name: str, fill: Callable[[Path], None]) -> Path:
        folder, filled = top / name, top / f"{name}.filled"
        top.mkdir(exist_ok=True)
        with FileLock(top / f"{name}.lock"):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def compiled_once(once) -> Tree:
    """The two engines, built; for tests to begin with a twin of it."""

    def build(folder: Path) -> None:
        run = make_two(Tree(folder / "tree")).scons()
        assert run.status == 0, run.out
        assert run.built == ["a", "b"]

    return Tree.at(once("compiled", build) / "tree", {})


@pytest.fixture
def built(tmp_path: Path, compiled_once: Tree) -> Tree:
    """The two engines, built."""
    return compiled_once.twin(tmp_path / "tree")


def make_model(
    path: Path,
    seed: int = 0,
    shape: tuple = (1, 8, 16, 16),
    external: str | None = None,
    width: int = 8,
    depth: int = 0,
) -> Path:
    """A real network: two convolutions with random weights, `depth` more between them. A text in
    `shape` is dynamic."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)

    def weights(name: str, *dims: int):
        return numpy_helper.from_array(random.standard_normal(dims).astype(np.float32), name)

    channels = shape[1]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["h"], name="first", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            *(
                helper.make_node("Conv", [f"d{i}" if i else "r", f"v{i}"], [f"d{i + 1}"], pads=[1] * 4)
                for i in range(depth)
            ),
            helper.make_node("Conv", [f"d{depth}" if depth else "r", "w2"], ["y"], name="second"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            weights("w1", width, channels, 3, 3),
            *(weights(f"v{i}", width, width, 3, 3) for i in range(depth)),
            weights("w2", 4, width, 1, 1),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.save_model(model, path, save_as_external_data=True, location=external, size_threshold=0)
    else:
        onnx.save_model(model, path)
    return path


def flip_last_bit(path: Path, keep_mtime: bool = True) -> None:
    """Change one byte; size and mtime stay."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    if keep_mtime:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def fake_compiler(
    folder: Path, act: str = "done(write())", product: str = "tensorrt", version: str = "10.3.0.30"
) -> Path:
    """A stand-in for the interpreter with TensorRT, for fault timing and for hardware that is
    not here. act: Python; `write()` writes a whole plan of the job, `done()` reports it."""
    for name in (product, f"{product}_cu13-{version}.dist-info"):  # as an installation lies there
        (folder / name).mkdir(parents=True, exist_ok=True)
    script = folder / "python"
    text = (HERE / "support/fake_compiler.py").read_text()
    for name, value in (("PRODUCT", product), ("VERSION", version), ("FOLDER", str(folder))):
        text = text.replace(f"@{name}@", value)
    text = text.replace("@ACT@", act).replace("@PYTHON@", sys.executable)
    script.write_text(text)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A libcuda that tells of an Orin, or of what PLAY_ variables say."""
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = HERE / "support/libcuda.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture(scope="session")
def driver(libcuda: Path) -> Path:
    """Its folder, for LD_LIBRARY_PATH."""
    return libcuda.parent


def hardware(path: Path, **changes: object) -> Path:
    """A hardware file, of an Orin NX unless `changes` say otherwise; None leaves a field out."""
    fields = {
        **JETSON,
        "gpu_name": "Orin",
        "sm_count": 8,
        "memory_gib": 16,
        "memory_bus_bits": 128,
        "l2_bytes": 2 << 20,
        "integrated": True,
        "jetpack": "6.2",
        "recorded": {"driver": "540.4.0", "host_name": "bench-1"},
    }
    fields.update(changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
    return path


# What the command line of every child process holds: the first line of the program it is started with.
WORKER = (REPO / "site_scons/scons_tensorrt/worker/common/boot.py").read_text().splitlines()[0].strip('"')


def workers_of(marker: str) -> list[int]:
    """Processes whose command line holds `marker`, other than this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if entry.name.isdigit() and int(entry.name) != os.getpid() and marker.encode() in line:
            found.append(int(entry.name))
    return found
