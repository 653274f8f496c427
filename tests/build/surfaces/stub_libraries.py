"""Make stubs of cuBLAS and cuDNN, over which TensorRT 8 can be imported without a GPU.

    python stub_libraries.py FOLDER_OF_TENSORRT STUBS
    LD_LIBRARY_PATH=STUBS python -c 'import tensorrt'

FOLDER_OF_TENSORRT is where the wheel `tensorrt==8.6.0` (Python 3.6 to 3.10, 781 MiB) or `tensorrt==8.5.2.2`
(523 MiB) has libnvinfer_plugin.so.8. Every function of a stub fails.
"""

import re
import subprocess
import sys
from pathlib import Path


def make(tensorrt: Path, stubs: Path) -> None:
    """Write the libraries that the plugins of the TensorRT in a folder are linked against."""
    text = subprocess.run(
        ["nm", "-D", "--undefined-only", tensorrt / "libnvinfer_plugin.so.8"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    needed: dict = {}
    for function, library in re.findall(r"U (\w+)@(lib(?:cublas|cublasLt|cudnn)\.so\.\d+)$", text, re.M):
        needed.setdefault(library, []).append(function)
    stubs.mkdir(parents=True, exist_ok=True)
    for library, functions in needed.items():
        source, versions = stubs / "stub.c", stubs / "stub.map"
        source.write_text("".join(f"int {name}(void) {{ return 1; }}\n" for name in functions))
        versions.write_text(f"{library} {{ global: *; }};\n")
        linked = [f"-Wl,-soname,{library}", f"-Wl,--version-script={versions}"]
        subprocess.run(["cc", "-shared", "-fPIC", *linked, "-o", stubs / library, source], check=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
