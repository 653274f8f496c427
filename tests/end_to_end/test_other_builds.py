"""Engines as outputs of CMake, with make and ninja, and of GNU make."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import make_model, sound

PROGRAM = Path(sys.executable).with_name("scons-tensorrt")
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the package is not installed in this Python")
LISTS = """
cmake_minimum_required(VERSION 3.20)
project(app CXX)
execute_process(COMMAND scons-tensorrt cmake-dir OUTPUT_VARIABLE dir OUTPUT_STRIP_TRAILING_WHITESPACE)
find_package(SconsTensorrt REQUIRED PATHS "${dir}")
trt_add_engine(net_engine NAME net ONNX models/net.onnx PRECISION fp16 SHAPES x=2x8x16x16)
trt_add_engine(board_engine NAME net ONNX models/net.onnx SHAPES x=2x8x16x16 HARDWARE rtx_sm86
               OPTIONS --workspace-mb 512)
add_executable(app main.cpp)
target_link_libraries(app PRIVATE SconsTensorrt::verified_engine)
add_dependencies(app net_engine)
get_target_property(engine net_engine TRT_ENGINE)
target_compile_definitions(app PRIVATE NET="${engine}")
"""
MAIN = """
#include <scons_tensorrt/verified_engine.hpp>
int main() { return scons_tensorrt::load_verified(NET).size() > 1000 ? 0 : 1; }
"""


def needs(*programs):
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def run(tree, *command, fails=False):
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=tree.root,
        env=tree.env(PATH=path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout


@pytest.fixture
def project(tree):
    make_model(tree.path("models/net.onnx"), shape=("n", 8, 16, 16), external="net.data")
    tree.path("CMakeLists.txt").write_text(LISTS)
    tree.path("main.cpp").write_text(MAIN)
    return tree


def touch(path):
    """Newer than anything that is there, for a build by times."""
    later = path.stat().st_mtime + 100
    os.utime(path, (later, later))


@pytest.mark.parametrize(("generator", "tool"), [("Unix Makefiles", "make"), ("Ninja", "ninja")])
def test_engines_are_outputs_of_cmake(project, generator, tool):
    needs("cmake", tool, "c++")
    run(project, "cmake", "-S", ".", "-B", "out", "-G", generator)
    built = run(project, "cmake", "--build", "out", "-j2")
    assert built.count("BUILT ") == 2
    engines = sorted(project.path("out/engines").rglob("*.engine"))
    assert [engine.parent.name for engine in engines] == ["engines", "rtx_sm86"]
    assert all(sound(engine) for engine in engines)
    run(project, project.path("out/app"))
    assert "engines:" not in run(project, "cmake", "--build", "out")

    project.path("models/net.data").write_bytes(bytes(project.path("models/net.data").stat().st_size))
    touch(project.path("models/net.data"))
    assert run(project, "cmake", "--build", "out").count("BUILT ") == 2

    engines[0].unlink()
    assert "because the engine is missing" in run(project, "cmake", "--build", "out")

    project.path("models/net.onnx").write_text("<html>")
    touch(project.path("models/net.onnx"))
    assert "not an ONNX file" in run(project, "cmake", "--build", "out", fails=True)


def test_what_cmake_cannot_configure_is_said(project):
    needs("cmake", "c++")
    project.path("CMakeLists.txt").write_text(LISTS.replace("rtx_sm86", "moon"))
    out = run(project, "cmake", "-S", ".", "-B", "out", fails=True)
    assert "HARDWARE=moon: no hardware/moon.json and no built-in" in out.replace("\n  ", " ")
    project.path("CMakeLists.txt").write_text(LISTS.replace("NAME net ", ""))
    out = run(project, "cmake", "-S", ".", "-B", "out2", fails=True)
    assert "write NAME <name> ONNX <file>" in out.replace("\n  ", " ")


@pytest.mark.slow
def test_engines_are_targets_of_make(project):
    needs("make")
    project.path("Makefile").write_text(
        "include $(shell scons-tensorrt cmake-dir)/engines.mk\n"
        "$(eval $(call trt_engine,net,models/net.onnx,fp16,--shape=x=2x8x16x16))\n"
        "all: $(net_fp16_ENGINE)\n.DEFAULT_GOAL := all\n"
    )
    assert run(project, "make").count("BUILT ") == 1
    assert sound(project.engine("net"))
    assert "Nothing to be done" in run(project, "make")
    touch(project.path("models/net.data"))
    assert "engines: 1 reused, 0 built" in run(project, "make")
    project.engine("net").unlink()
    assert "because the engine is missing" in run(project, "make")
    project.path("models/net.onnx").write_text("<html>")
    touch(project.path("models/net.onnx"))
    assert "not an ONNX file" in run(project, "make", fails=True)


def test_a_depfile_names_every_input(tree):
    make_model(tree.path("models/a b#1.onnx"), external="w.data")
    make_model(tree.path("models/ref.onnx"))
    import numpy as np

    (tree.path("models/samples")).mkdir()
    np.savez(tree.path("models/in.npz"), x=np.zeros((1, 8, 16, 16), np.float32))
    arguments = ["--precision", "fp16", "--depfile", "out/deps.d", "ENGINE_DIR=out"]
    accuracy = "{'inputs': 'models/in.npz', 'reference': 'models/ref.onnx', 'atol': 1e9, 'rtol': 1e9}"
    run(tree, PROGRAM, "build", "models/a b#1.onnx", "--name", "net", *arguments, "--accuracy", accuracy)
    [engine] = tree.path("out").glob("*.engine")
    assert tree.path("out/deps.d").read_text() == (
        rf"out/{engine.name}: models/a\ b\#1.onnx models/w.data models/in.npz models/ref.onnx" "\n"
    )


def test_the_name_of_an_engine_is_told_before_it_is_built(tree):
    out = run(tree, PROGRAM, "name", "build", "net", "--precision", "fp16", "--hardware", "rtx_sm86")
    make_model(tree.path("net.onnx"))
    run(tree, PROGRAM, "build", "net.onnx", "--precision", "fp16", "--hardware", "rtx_sm86")
    assert tree.path(out.strip()).exists()
