"""The C++ loader accepts and refuses what Python's load_verified does, with the same messages.

Compiled with each compiler that is installed, with each SHA-256, with warnings as errors, and run under
AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import functools
import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from damaged import BYTES, CASES, NAME, PORTABLE, SINGLE, TENSORRT, put, rtx

import scons_tensorrt
from scons_tensorrt import load_verified
from scons_tensorrt.artifact.filename import PRECISIONS
from scons_tensorrt.errors import SidecarError, one_line

INCLUDE = Path(scons_tensorrt.__file__).parent / "include"
PROGRAM = Path(__file__).with_name("load.cpp")
WARNINGS = "-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror".split()
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
OPENSSL = Path("/usr/include/openssl/evp.h").exists()


@functools.cache
def _sanitizers(compiler, folder):
    """The sanitizers, if this compiler has their libraries."""
    program = folder / f"probe.{compiler}"
    command = [compiler, *SANITIZERS, "-x", "c++", "-", "-o", program]
    done = subprocess.run(command, input=b"int main() {}", capture_output=True)
    return SANITIZERS if done.returncode == 0 else []


def build(compiler, folder, *flags):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    if "-lcrypto" in flags and not OPENSSL:
        pytest.skip("OpenSSL's headers are not installed")
    program = folder / "load"
    sanitizers = _sanitizers(compiler, folder)
    command = [compiler, "-std=c++17", "-O0", *WARNINGS, *sanitizers, f"-I{INCLUDE}", PROGRAM]
    subprocess.run([*command, "-o", program, "-Wl,--wrap=read", *flags], check=True)
    return program


def run(program, *engines, **options):
    done = subprocess.run(
        [program, *engines], env={**os.environ, **options}, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""  # the sanitizers report there
    assert done.returncode == 0
    return done.stdout.splitlines()


def expected(engine):
    try:
        data = load_verified(engine)
    except SidecarError as error:
        return one_line(str(error))
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build("g++", tmp_path_factory.mktemp("program"))


def mutants(count):
    """Filenames near the schema's edge."""
    rng = random.Random(18)
    words = ["a", "a_b", "a__b", "_a", "a_", "", "A", "a" * 64, "a" * 65, "é"]
    sms = ["sm80", "sm8", "sm121", "sm0", "sm08", "sm12345", "sm80plus", "smplus", "sm", "80", "sm86", "sm-8"]
    platforms = ["cu13.0", "jp6.2", "cu13", "cu13.", "cu.0", "cu01.0", "cu1234567.0", "xx1.0", "cu1.0.0"]
    runtimes = ["rtx1.7", "trt10.3", "rtx1", "rtx", "trtx1.0", "trt0.0", "rtx1.00"]
    precisions = [*PRECISIONS, "fp64", "", "fp16_x"]
    for _ in range(count):
        fields = [rng.choice(sms), rng.choice(platforms), rng.choice(runtimes), rng.choice(precisions)]
        if rng.random() < 0.1:
            fields.pop(rng.randrange(4))
        yield rng.choice(words) + "__" + "_".join(fields) + rng.choice([".engine"] * 9 + [".engin"])
    good = ["sm80", "sm80plus", "sm86"], ["cu13.0", "jp6.2"], ["rtx1.7", "trt10.3"], PRECISIONS
    for _ in range(count):
        yield "a__" + "_".join(rng.choice(choices) for choices in good) + ".engine"


@pytest.mark.parametrize("flags", [[], ["-DSCONS_TENSORRT_WITH_OPENSSL", "-lcrypto"]], ids=["own", "openssl"])
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_it_loads_and_refuses_what_python_does(tmp_path, compiler, flags):
    program = build(compiler, tmp_path, *flags)
    engines = []
    for case in CASES:
        folder = tmp_path / case.id
        folder.mkdir()
        engines.append(case.make(folder))
    for number, name in enumerate(mutants(150)):
        folder = tmp_path / str(number)
        folder.mkdir()
        engines.append(put(folder, [rtx(0x04), rtx(0x3E), rtx(0x7E), TENSORRT][number % 4], name))
    assert run(program, *engines) == [expected(engine) for engine in engines]

    # A file of several pieces, whose size is no multiple of one.
    large = put(tmp_path, os.urandom((3 << 20) + 17))
    assert run(program, large) == [expected(large)]
    assert run(program, large, MAX_BYTES=str(1 << 20)) == [
        f"{large}: it has {(3 << 20) + 17} bytes, more than {1 << 20}"
    ]


def test_bytes_that_change_while_they_are_read_are_not_loaded(program, tmp_path):
    engine = put(tmp_path)
    assert run(program, engine, GROW=str(engine)) == [f"{engine}: it changed while it was read; try again"]
    other = tmp_path / "other"
    other.write_bytes(b"other")
    put(tmp_path)
    loaded = run(program, engine, EXCHANGE=str(other), ENGINE=str(engine))
    assert loaded == [f"{len(BYTES)} {hashlib.sha256(BYTES).hexdigest()}"]
    assert engine.read_bytes() == b"other"


def test_a_hash_and_a_manifest_that_are_given_are_checked(program, tmp_path):
    engine, sums = put(tmp_path), tmp_path / "SHA256SUMS"
    digest, zeros = hashlib.sha256(BYTES).hexdigest(), "0" * 64
    loaded = [f"{len(BYTES)} {digest}"]
    other = f"sha256 {zeros[:12]} listed, {digest[:12]} found"
    assert run(program, engine, SHA256=digest) == loaded
    assert run(program, engine, SHA256=zeros) == [
        f"{engine}: does not match the sha256 that was given: {other}"
    ]
    assert run(program, engine, SHA256="")[0].startswith(f"{engine}: does not match")
    for text, expects in [
        (f"{digest}  {NAME}\n", loaded[0]),
        (f"{zeros}  {SINGLE}\n{digest}  {NAME}\n{zeros}  {PORTABLE}", loaded[0]),
        (f"{zeros}  {NAME}\n", f"{engine}: does not match {sums}: {other}"),
        (f"{digest}  {SINGLE}\n", f"{sums}: does not list '{NAME}'"),
        (f"{digest}  {NAME}\n{digest}  {NAME}\n", f"{sums}: lists '{NAME}' twice"),
        (f"{digest}  ./{NAME}\n", f"{sums}: does not list '{NAME}'"),
        (f"{digest} {NAME}\n", f"{sums}: does not list '{NAME}'"),
        (f"{digest.upper()}  {NAME}\n", f"{sums}: not the output of sha256sum"),
        ("\n", f"{sums}: not the output of sha256sum"),
        ("", f"{sums}: does not list '{NAME}'"),
    ]:
        sums.write_text(text)
        assert run(program, engine, SUMS=str(sums)) == [expects]
    sums.unlink()
    assert run(program, engine, SUMS=str(sums)) == [f"{sums}: not readable (No such file or directory)"]
    sums.symlink_to(engine)
    assert "a symbolic link" in run(program, engine, SUMS=str(sums))[0]


ODD = ["a\nb", "a\x1b[31mb", "a\tb", "a\x7f", "a\x9bb", "é", "中", "🙂", "\\x1b"]
ODD += ["a\u202eb", "a\u2028b", "a\u200bb"]
BAD = [b"a\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x8a", b"\xe2\x80"]  # not UTF-8


def test_control_characters_of_names_and_contents_are_escaped(program, tmp_path):
    """A message is one line, and no file can control the terminal that shows it."""
    engines = [os.fsencode(tmp_path / f"{name}.engine") for name in ODD]
    engines += [os.fsencode(tmp_path) + b"/" + name + b".engine" for name in BAD]
    found = run(program, *engines)
    assert found == [expected(os.fsdecode(engine)) for engine in engines]
    assert all(line.isprintable() and ": sidecar missing" in line for line in found)
    named = tmp_path / NAME
    Path(f"{named}.sha256").write_bytes(b"0" * 64 + b"  x\x1b[2J\x07.engine\n")
    [line] = run(program, named)
    assert line == f"{named}.sha256: sidecar names another file, 'x\\x1b[2J\\x07.engine'"
