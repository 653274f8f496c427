"""Models on disk images: another image at the same place is another model, whatever its stat says."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from conftest import Tree, make_model


def mount(image: Path, place: Path) -> os.stat_result:
    done = subprocess.run(["mount", "-o", "loop,ro", image, place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no loop mounts here")
    return (place / "a.onnx").stat()


@pytest.mark.slow
def test_a_model_on_another_image_with_the_same_stat_is_compiled(tree: Tree, tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("mke2fs"):
        pytest.skip("needs root and mke2fs")
    one, two, place = tmp_path / "one.img", tmp_path / "two.img", tree.path("models")
    models = []
    for seed in (2, 1):
        make_model(tmp_path / "content/a.onnx", seed=seed)
        models.append((tmp_path / "content/a.onnx").read_bytes())
    make = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tmp_path / "content", one, "2M"]
    subprocess.run(make, check=True)
    time.sleep(2.5)  # the image keeps whole seconds, and what is so new is not remembered
    data, (new, old) = one.read_bytes(), models
    for at in range(0, len(old), 1024):  # block by block
        data = data.replace(old[at : at + 1024], new[at : at + 1024])
    two.write_bytes(data)
    tree.write('env.Engine("a", "models/a.onnx")')
    stats = []
    for image in (one, two):
        found = mount(image, place)
        try:
            stats.append((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
            if stats[0] != stats[-1]:
                pytest.skip("the kernel gave another loop device")
            assert tree.scons().built == ["a"]
            assert tree.scons().reused == ["a"]
        finally:
            subprocess.run(["umount", place], check=True)
