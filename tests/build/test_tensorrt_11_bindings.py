"""The worker's path over TensorRT 11.4's own Python bindings, with real engines out.

TensorRT for RTX 1.7 has the binary interface that these bindings ask for: three libraries by
name, two of them RTX's, the third a line of C. A test bench for the code path, not a runtime:
what comes out is a plan of RTX, which a compile for `tensorrt` refuses to publish. So the bench
drives the worker below the check of the hardware and above nothing.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
from jobs import compile_job  # noqa: E402

from conftest import make_model  # noqa: E402
from scons_tensorrt.worker.trt.job import PinnedKernels  # noqa: E402

DRIVER = """
import json, sys
job = json.loads(sys.stdin.read())
sys.path.insert(0, job.pop("site"))
import tensorrt
# Over RTX's library this one slot of the interface is another function's: it says True and
# writes nothing. So the bench takes the way of 10.3, which has no streaming; RTX streams itself.
del tensorrt.Builder.build_serialized_network_to_stream
from scons_tensorrt.worker.common import parent as link; from scons_tensorrt.worker.trt import main
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt.job import CompileJob
events = []
link.send = lambda event, **fields: events.append([event, fields])
try:
    made = main.make(tensorrt, CompileJob.from_json(job))
    print(json.dumps({"made": made, "version": tensorrt.__version__, "events": events}))
except WorkerError as refused:
    print(json.dumps({"refused": [refused.error_class, str(refused)]}))
"""


def folder_of(package):
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec else None


needed = all(folder_of(name) for name in ("tensorrt_bindings", "tensorrt_rtx_libs"))
pytestmark = pytest.mark.skipif(not needed, reason="tensorrt-cu13-bindings or tensorrt-rtx is missing")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Compile a job over the bindings; returns what the driver printed."""
    top = tmp_path_factory.mktemp("bench")
    rtx = folder_of("tensorrt_rtx_libs")
    (top / "libnvinfer.so.11").symlink_to(rtx / "libtensorrt_rtx.so.1")
    (top / "libnvonnxparser.so.11").symlink_to(rtx / "libtensorrt_onnxparser_rtx.so.1")
    (top / "plugin.c").write_text("int initLibNvInferPlugins(void *l, const char *n) { return 1; }\n")
    plugin = ["cc", "-shared", "-fPIC", "-o", top / "libnvinfer_plugin.so.11", top / "plugin.c"]
    subprocess.run(plugin, check=True)
    shim = top / "site" / "tensorrt"
    shim.mkdir(parents=True)
    (shim / "__init__.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )

    def run(folder, **changes):
        job = {"site": str(top / "site"), **compile_job(folder, onnx="a.onnx", **changes).to_json()}
        done = subprocess.run(
            [sys.executable, "-c", DRIVER],
            input=json.dumps(job),
            env={
                **os.environ,
                "LD_LIBRARY_PATH": f"{top}:{rtx}",
                "PYTHONPATH": str(REPO / "site_scons"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_whole_build_gives_a_real_engine(bench, tmp_path):
    make_model(tmp_path / "a.onnx")
    said = bench(tmp_path)
    assert said["version"] == "11.4.0.106"
    sha256, size, unsteady = said["made"]
    assert not unsteady
    data = (tmp_path / "out.engine").read_bytes()
    assert len(data) == size == int.from_bytes(data[16:24], "little")
    assert hashlib.sha256(data).hexdigest() == sha256


def test_progress_is_told(bench, tmp_path):
    make_model(tmp_path / "a.onnx")
    kinds = [event for event, _ in bench(tmp_path)["events"]]
    assert kinds.count("phase") == kinds.count("phase_done") > 0


def test_a_dynamic_model_with_its_profiles(bench, tmp_path):
    make_model(tmp_path / "a.onnx", shape=("n", 8, "h", 16))
    first = {"x": [[1, 8, 16, 16], [2, 8, 32, 16], [4, 8, 64, 16]]}
    second = {"x": [[8, 8, 16, 16], [8, 8, 16, 16], [8, 8, 16, 16]]}
    assert bench(tmp_path, profiles=[first, second])["made"][1] > 0


def test_flags_are_set_and_read_back(bench, tmp_path):
    make_model(tmp_path / "a.onnx")
    assert bench(tmp_path, flags=["REFIT_INDIVIDUAL"])["made"][1] > 0


def test_the_settings_of_builder_parser_and_network_are_accepted(bench, tmp_path):
    make_model(tmp_path / "a.onnx")
    settings = {
        "max_num_tactics": 3,
        "l2_limit_for_tiling": 1 << 20,
        "tactic_sources": "JIT_CONVOLUTIONS",
        "preview_features": "RUNTIME_ACTIVATION_RESIZE_10_10",
        "parser_flags": "ADJUST_FOR_DLA NATIVE_INSTANCENORM",
    }
    assert bench(tmp_path, settings=settings)["made"][1] > 0


REFUSALS = [
    (
        {"settings": {"io_formats": '{"x": "fp16:chw32"}'}},
        "RecipeError",
        "compiles it so; write only the format",
    ),
    (
        {"settings": {"tactic_sources": "CUDNN"}},
        "RecipeError",
        "tactic_sources CUDNN is not supported by Ten",
    ),
    ({"settings": {"layer_devices": '{"first": "dla"}'}}, "RecipeError", "`first` cannot run on a DLA"),
    ({"flags": ["REQUIRE_USER_ALLOCATION"]}, "RecipeError", "is not supported by TensorRT 11.4.0.106"),
    ({"precision": "fp16"}, "RecipeError", "no tensor of the model is HALF"),
    ({"profiles": [{"y": [[1], [1], [1]]}]}, "RecipeError", "the network has no input `y`"),
    ({"flags": ["REFIT"]}, "EngineBuildError", "the builder refused the network: "),
    ({"output": "/dev/full"}, "PublishError", "No space left on device"),
]


@pytest.mark.parametrize(("changes", "error_class", "message"), REFUSALS, ids=[r[2] for r in REFUSALS])
def test_what_is_refused(bench, tmp_path, changes, error_class, message):
    make_model(tmp_path / "a.onnx")
    said = bench(tmp_path, **changes)["refused"]
    assert said[0] == error_class
    assert message in said[1]


def test_a_model_that_does_not_parse_names_node_and_op(bench, tmp_path):
    import onnx

    model = onnx.load(make_model(tmp_path / "a.onnx"))
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "a.onnx")
    assert "node 1 `relu` (NoSuchOperator)" in bench(tmp_path)["refused"][1]


def test_an_empty_file_is_no_network(bench, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"")
    assert bench(tmp_path)["refused"][0] == "EngineBuildError"


@pytest.mark.slow
def test_kernels_are_recorded_through_the_real_bindings(bench, tmp_path):
    """RTX chooses no kernel, so the cache has no entry; every call, flag and answer is real."""
    make_model(tmp_path / "a.onnx")
    out = tmp_path / "recorded"
    said = bench(tmp_path, pinned=PinnedKernels("a.cache", None, {}, str(out)))
    assert said["made"][1] > 0, said
    assert out.read_bytes()[:4] == b"ptrt"
    start = tmp_path / "start"
    out.rename(start)
    known = {"0x1814870c44ff0f8574df6e3dda04cbd7": "0x533a71cee0d0e"}
    said = bench(tmp_path, pinned=PinnedKernels("a.cache", str(start), known, None))
    assert said["refused"][1].startswith(
        "timing_cache a.cache: TensorRT 11.4.0.106 does not accept it on this GPU"
    )
