"""What the pages presume: all that is specific to one page or block stands here."""

from __future__ import annotations

import re
from pathlib import Path

HEADER = """\
env = Environment(tools=["trt_engines"], toolpath=[PyPackageDir("scons_tensorrt.tools")])
"""
# The repo of a page that does not write a SConstruct of its own.
SCONSTRUCT = f"""\
{HEADER}
engines = [
    env.Engine("dinov2_vpr", "models/dinov2_vpr.onnx"),
    env.Engine("magika", "models/magika.onnx"),
    env.Engine("magika", "models/magika.onnx", precision="fp16"),
]
manifest = env.EngineManifest("dist/manifest.json", engines)
env.InstallEngines("share/engines", engines, manifest=manifest)
"""
# In place of this project's own nine engines, which take half a minute; not with DOCS=all.
CLONE_SCONSCRIPT = """\
Import("env")
made = [env.Engine("face", "face.onnx")]
Return("made")
"""
# A command that runs this test suite only finds the tests of one file.
ENVIRONMENT = {"PYTEST_ADDOPTS": "--collect-only --maxprocesses=1 tests/test_walls.py"}
# A block with this text runs in a clone of this project, not in the reader's repo.
IN_CLONE = re.compile(r"'\.\[|\b(benchmarks|tests|docs/examples)/")
# What a reader has done before a block with this text.
BEFORE = {
    "STORE_MODE=write": "rm -r engines .trt .sconsign.dblite  # what is reused is not given to a store",
    "--manifest /usr/share/engines": "scons -Q install DESTDIR=$ROOT PREFIX=/usr",
}
EXPORT = 'import sys, onnx\nonnx.save(onnx.load("models/face.onnx"), sys.argv[1])\n'


def placeholders(root: Path, wheel: Path) -> dict[str, str]:
    """What a reader replaces, and places that a test must not write to."""
    return {
        "/path/of/the/clone/site_scons": str(Path(__file__).parents[2] / "site_scons"),
        "/path/of/the/clone": str(wheel),
        "s3://team/engines": f"file://{root}/store",
        "/usr/share/engines": f"{root}/usr/share/engines",
        "/tmp/": f"{root}/tmp/",
    }


def write_models(folder: Path, snippet: str) -> None:
    """The files that a SConstruct names, as small as they can be."""
    for name in re.findall(r'"models/(\w+)\.onnx"', snippet):
        write_network(folder / "models" / f"{name}.onnx", dynamic="shapes=" in snippet)
    for name in re.findall(r'"models/(\w+)\.npz"', snippet):
        import numpy as np

        image = np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32)
        np.savez(folder / "models" / f"{name}.npz", image=image)
    if '"export.py"' in snippet:
        (folder / "export.py").write_text(EXPORT)


def write_network(path: Path, dynamic: bool = False) -> None:
    """A convolution and a LayerNormalization; of a fixed size unless `dynamic`; weights by the name."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(len(path.name))
    arrays = {"w": (4, 3, 16, 16), "scale": (14,)}
    shape = ["n" if dynamic else 1, 3, 224, 224]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["h"], name="conv", strides=[16, 16]),
            helper.make_node("LayerNormalization", ["h", "scale"], ["y"], name="norm"),
        ],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(random.standard_normal(dims).astype(np.float32), name)
            for name, dims in arrays.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, path)
