"""What is handed on: the manifest as a target, its signature, installation, an image of it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPO, Tree, fake_compiler, flip_last_bit, hardware, make_model, sha256

A, B = (f"{name}__sm80plus_cu13.0_rtx1.7_fp32.engine" for name in "ab")
SCRIPT = """
a = env.Engine("a", "models/a.onnx")
b = env.Engine("b", "models/b.onnx")
m = env.EngineManifest("dist/manifest.json", [a, b])
env.InstallEngines("share/engines", [a, b], manifest=m)
"""
HOST = {
    "schema": 1,
    "product": "tensorrt_rtx",
    "runtime_version": "1.7.1.116",
    "cuda": "13.0",
    "os": "linux",
    "machine": os.uname().machine,
    "compute_capability": "8.9",
    "architectures": [89],
}


def make(root: Path) -> Tree:
    tree = Tree(root)
    make_model(tree.path("models/a.onnx"), seed=1)
    make_model(tree.path("models/b.onnx"), seed=2)
    tree.write(SCRIPT)
    return tree


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Tree:
    """Two engines and their manifest, made once."""
    tree = make(tmp_path_factory.mktemp("origin") / "tree")
    run = tree.scons("dist")
    assert (run.status, run.built) == (0, ["a", "b"]), run.out
    assert "\nWROTE dist/manifest.json (2 engines) because not written before\n" in run.out
    return tree


@pytest.fixture
def made(origin: Tree, tmp_path: Path) -> Tree:
    """A clone of it with engines, state and record."""
    return origin.copy(
        tmp_path / "clone", "SConstruct", "models", "engines", ".trt", "dist", ".sconsign.dblite"
    )


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    """A private key; its public half is beside it."""
    pytest.importorskip("cryptography")
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    assert cli("keygen", str(path)).returncode == 0
    return path


def cli(*arguments: str, bare: bool = False) -> subprocess.CompletedProcess[str]:
    """`python -m scons_tensorrt`; bare: with nothing but the standard library."""
    options = ["-S"] if bare else []
    return subprocess.run(
        [sys.executable, *options, "-m", "scons_tensorrt", *arguments],
        env={
            "PYTHONPATH": str(REPO / "site_scons"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": os.environ["PATH"],
        },
        capture_output=True,
        text=True,
        check=False,
    )


def host(folder: Path, **changes: object) -> str:
    path = folder / "host.json"
    path.write_text(json.dumps({**HOST, **changes}))
    return str(path)


def test_one_engine_is_counted_as_one(built: Tree) -> None:
    built.write('env.EngineManifest("dist/manifest.json", [env.Engine("a", "models/a.onnx")])')
    assert "\nWROTE dist/manifest.json (1 engine) because not written before\n" in built.scons("dist").out
    assert built.scons("engines-report").out.count("report of 1 engine in ") == 1


def test_a_manifest_lists_what_the_sidecars_state(made: Tree) -> None:
    data = json.loads(made.path("dist/manifest.json").read_text())
    assert {e["name"]: e["sha256"] for e in data["engines"]} == {
        name: made.path(f"engines/{name}.sha256").read_text() for name in (A, B)
    }
    assert [e["recipe_digest"] for e in data["engines"]] == [made.receipt(n)["key"] for n in "ab"]
    assert made.path("dist/manifest.json.sha256").read_text() == sha256(made.path("dist/manifest.json"))
    done = subprocess.run(["sha256sum", "-c", "../dist/SHA256SUMS"], cwd=made.path("engines"), check=False)
    assert done.returncode == 0


def test_a_manifest_that_is_right_is_left_alone(made: Tree) -> None:
    before = made.snapshot("dist")
    assert made.scons("-q", "dist").status == 0
    made.path(".sconsign.dblite").unlink()
    run = made.scons("dist")
    assert (run.status, run.lines("WROTE"), run.built) == (0, [], [])
    assert made.snapshot("dist") == before


TAMPERINGS = {
    "manifest edited": lambda t: flip_last_bit(t.path("dist/manifest.json")),
    "manifest of fewer engines": lambda t: t.path("dist/manifest.json").write_text(
        json.dumps({**json.loads(t.path("dist/manifest.json").read_text()), "engines": []})
    ),
    "manifest gone": lambda t: t.path("dist/manifest.json").unlink(),
    "manifest a link": lambda t: (
        t.path("dist/manifest.json").rename(t.path("elsewhere")),
        t.path("dist/manifest.json").symlink_to(t.path("elsewhere")),
    ),
    "its sidecar edited": lambda t: flip_last_bit(t.path("dist/manifest.json.sha256")),
    "the sums gone": lambda t: t.path("dist/SHA256SUMS").unlink(),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_one_that_was_tampered_with_is_written_again_and_no_engine_built(made: Tree, tamper) -> None:
    before = {name: sha for name, (sha, _) in made.snapshot("dist").items()}
    tamper(made)
    assert made.scons("-q", "dist").status == 1
    dry = made.scons("-n", "dist")
    assert len(dry.lines("WOULD WRITE")) == 1
    run = made.scons("dist")
    assert (run.status, run.built, len(run.lines("WROTE"))) == (0, [], 1)
    assert run.lines("WROTE")[0].partition(" because ")[2] == dry.out.partition(" because ")[2].split("\n")[0]
    assert {name: sha for name, (sha, _) in made.snapshot("dist").items()} == before
    assert made.scons("-q", "dist").status == 0


def test_a_manifest_follows_its_engines_in_the_same_run(made: Tree) -> None:
    make_model(made.path("models/a.onnx"), seed=3)
    dry = made.scons("-n", "dist")
    assert "WOULD WRITE dist/manifest.json because its engines would be built first" in dry.out
    run = made.scons("dist")
    assert run.built == ["a"]
    assert f"WROTE dist/manifest.json (2 engines) because {A} changed" in run.out
    assert made.scons("-q", "dist").status == 0


def test_a_manifest_of_an_engine_that_fails_is_not_written(made: Tree) -> None:
    before = made.snapshot("dist")
    made.path("models/a.onnx").write_bytes(b"junk")
    run = made.scons("-k", "dist")
    assert (run.status, run.failed, run.lines("WROTE")) == (2, ["a"], [])
    assert made.snapshot("dist") == before


def test_dry_run_and_question_write_nothing(tmp_path: Path) -> None:
    tree = make(tmp_path / "tree")
    assert tree.scons("-n", "dist").lines("WOULD WRITE") == [
        f"WOULD WRITE dist/{name} because its engines would be built first"
        for name in ("manifest.json", "manifest.json.cdx.json")
    ]
    assert tree.scons("-q", "dist").status == 1
    assert not tree.path("dist").exists()


def test_clean_takes_the_manifest_and_leaves_the_engines(made: Tree) -> None:
    assert made.scons("-c").status == 0
    assert not list(made.path("dist").glob("*"))
    assert sorted(made.engines()) == ["a", "b"]


def test_two_clones_hand_on_the_same_bytes(origin: Tree, tmp_path: Path, key: Path) -> None:
    """The second builds by itself, in another place."""
    other = make(tmp_path / "another" / "place")
    assert other.scons("dist", f"SIGNING_KEY={key}").built == ["a", "b"]
    for name in ("manifest.json", "manifest.json.sha256", "SHA256SUMS"):
        assert other.path(f"dist/{name}").read_bytes() == origin.path(f"dist/{name}").read_bytes()
    envelope = other.path("dist/manifest.json.intoto.jsonl").read_bytes()
    shutil.copytree(origin.root, tmp_path / "third")
    third = other.copy(tmp_path / "fourth", "SConstruct", "models", "engines", ".trt")
    assert third.scons("dist", TRT_SIGNING_KEY=key.read_text()).built == []
    assert third.path("dist/manifest.json.intoto.jsonl").read_bytes() == envelope


WRONG = [
    ('env.EngineManifest("m.json", [])', "no engines; give what env.Engine returned"),
    ('env.EngineManifest("m.json", ["models/a.onnx"])', "models/a.onnx: not an engine"),
    ('env.EngineManifest("m.json", a[0].sources)', "models/a.onnx: not an engine"),
    ("env.EngineManifest(None, [a])", "no target"),
    (
        'env.EngineManifest("m.json", [a]); env.EngineManifest("n.json", [b])',
        "SHA256SUMS belongs to another manifest",
    ),
    (
        'c = env.Clone(TRT_ENGINE_DIR="other").Engine("a", "models/a.onnx")\n'
        'env.EngineManifest("m.json", [a, c])',
        "have the same name; list only one of them",
    ),
    ('env.InstallEngines("../x", [a])', "inside the installation prefix"),
    ("env.InstallEngines(None, [a])", "inside the installation prefix"),
    ('env.InstallEngines("x", [a], manifest="m.json")', "give what env.EngineManifest returned"),
    (
        'env.InstallEngines("x", [a], manifest=env.EngineManifest("m.json", [a, b]))',
        f"the manifest is of other engines ({B}); a device would refuse it",
    ),
]


@pytest.mark.parametrize(("call", "why"), WRONG, ids=[call[:60] for call, _ in WRONG])
def test_a_wrong_call_is_one_line(two: Tree, call: str, why: str) -> None:
    two.write('a = env.Engine("a", "models/a.onnx"); b = env.Engine("b", "models/b.onnx")\n' + call)
    run = two.scons("-n", "engines")
    assert run.status == 2
    assert why in run.out
    assert "\nscons: *** SConstruct:" in run.out


# Signatures.


def test_a_signature_changes_no_byte_of_the_manifest_and_is_accepted(made: Tree, key: Path) -> None:
    before = made.snapshot("dist")
    run = made.scons("dist", f"SIGNING_KEY={key}")
    assert (run.status, len(run.lines("WROTE"))) == (0, 1)
    assert run.lines("WROTE")[0].endswith("because it has no statement signed with this key")
    after = made.snapshot("dist")
    assert {name: after[name] for name in before} == before
    assert made.scons("-q", "dist", f"SIGNING_KEY={key}").status == 0
    asked = ["verify", "--manifest", str(made.path("dist/manifest.json")), str(made.path("engines"))]
    done = cli(*asked, "--hardware", host(made.root), "--trusted-key", f"{key}.pub")
    assert done.returncode == 0, done.stdout
    flip_last_bit(made.path("dist/manifest.json.intoto.jsonl"))
    assert made.scons("dist", f"SIGNING_KEY={key}").status == 0
    assert made.snapshot("dist").keys() == after.keys()
    assert made.scons("-q", "dist", f"SIGNING_KEY={key}").status == 0


def test_the_key_is_in_no_file_and_no_line(made: Tree, key: Path) -> None:
    secret = key.read_text().splitlines()[1]
    run = made.scons("dist", "--debug=explain", "--tree=all", TRT_SIGNING_KEY=key.read_text())
    assert run.status == 0
    assert secret not in run.out
    for path in made.root.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()


def test_a_converters_process_has_no_key(made: Tree, key: Path) -> None:
    made.write('env.OnnxExport("x", "models/export.py:write")')
    made.path("models/export.py").write_text(
        "import os, shutil\n"
        "def write(target):\n"
        f"    shutil.copy({str(made.path('models/a.onnx'))!r}, target)\n"
        "    return {'has': any('_KEY' in name for name in os.environ if name.startswith('TRT_'))}\n"
    )
    names = ("TRT_SIGNING_KEY", "TRT_STORE_SIGNING_KEY", "TRT_STORE_KEY")
    run = made.scons(".trt/onnx/x.onnx", **dict.fromkeys(names, key.read_text()))
    assert run.status == 0, run.out
    (receipt,) = made.path(".trt/receipts/x.onnx").glob("*.json")
    assert '"has": false' in receipt.read_text()


@pytest.mark.parametrize("given", ["no/such/key.pem", "models/a.onnx"])
def test_a_key_that_is_none_fails_in_one_line_and_writes_nothing(made: Tree, given: str) -> None:
    pytest.importorskip("cryptography")
    before = made.snapshot("dist")
    run = made.scons("dist", f"SIGNING_KEY={given}")
    assert run.status == 2
    assert len(run.lines("FAILED")) == 1
    assert re.match(r"FAILED dist/manifest\.json: SConstruct:\d+: SigningError: ", run.lines("FAILED")[0])
    assert made.snapshot("dist") == before


def test_without_cryptography_no_signature_is_promised(made: Tree, tmp_path: Path, key: Path) -> None:
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "cryptography.py").write_text("raise ImportError")
    path = f"{stub}{os.pathsep}{REPO / 'site_scons'}"
    run = made.scons("dist", f"SIGNING_KEY={key}", PYTHONPATH=path)
    assert run.status == 2
    assert "SigningError: signatures need cryptography" in run.out
    assert made.scons("dist", PYTHONPATH=path).status == 0


def test_a_statement_from_elsewhere_is_kept_packed_and_told_when_it_is_of_another_manifest(
    made: Tree, key: Path
) -> None:
    made.scons("dist", f"SIGNING_KEY={key}", TRT_BUILDER_ID="https://ci.example/release")
    envelope = made.path("dist/manifest.json.intoto.jsonl")
    payload = json.loads(base64.b64decode(json.loads(envelope.read_text())["payload"]))
    assert payload["predicate"]["runDetails"]["builder"]["id"] == "https://ci.example/release"
    signed = envelope.read_bytes()
    made.scons("-c")  # as scons.bbclass does, on a host without the key
    assert envelope.read_bytes() == signed
    assert made.scons("install", "DESTDIR=image", "PREFIX=/usr").status == 0
    assert made.path("image/usr/share/engines/manifest.json.intoto.jsonl").read_bytes() == signed
    make_model(made.path("models/a.onnx"), seed=4)
    run = made.scons("install", "DESTDIR=image", "PREFIX=/usr")
    assert run.status == 2
    assert "dist/manifest.json.intoto.jsonl signs another manifest; sign again" in run.out
    assert envelope.read_bytes() == signed


# Installation.


def installed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


PACKED = sorted(
    f"usr/share/engines/{name}"
    for name in (
        A,
        A + ".sha256",
        B,
        B + ".sha256",
        "manifest.json",
        "manifest.json.cdx.json",
        "manifest.json.sha256",
        "manifest.json.spdx.json",
        "SHA256SUMS",
    )
)


def test_scons_bbclass_cleans_builds_and_installs(made: Tree, tmp_path: Path) -> None:
    """Its three commands as they stand, from another folder."""
    image = tmp_path / "image"
    image.mkdir()
    extra = ["VERIFY=full"]
    here = [f"--directory={made.root}"]
    clean = made.scons(*here, "--clean", "PREFIX=/usr", "prefix=/usr", cwd=tmp_path)
    assert (clean.status, sorted(made.engines())) == (0, ["a", "b"])
    args = ["PREFIX=/usr", "prefix=/usr", "MAXLINELENGTH=2097152", *extra]
    build = made.scons(*here, "-j2", *args, cwd=tmp_path)
    assert (build.status, build.built, build.reused) == (0, [], ["a", "b"])
    install = made.scons(*here, f"install_root={image}/usr", *args, "install", cwd=tmp_path)
    assert (install.status, install.built) == (0, [])
    assert installed(image) == PACKED
    assert len(install.lines("INSTALLED")) == 3


def test_buildroot_installs_below_destdir(made: Tree, tmp_path: Path) -> None:
    run = made.scons("install", f"DESTDIR={tmp_path / 'target'}", "PREFIX=/usr")
    assert (run.status, run.built) == (0, [])
    assert installed(tmp_path / "target") == PACKED


def test_what_is_installed_is_left_alone_and_what_is_wrong_there_is_replaced(made: Tree) -> None:
    arguments = ["install", "DESTDIR=image", "PREFIX=/usr"]
    assert made.scons(*arguments).status == 0
    before = made.snapshot("image")
    assert made.scons("-q", *arguments).status == 0
    made.path(".sconsign.dblite").unlink()
    assert made.scons(*arguments).lines("INSTALLED") == []
    assert made.snapshot("image") == before
    flip_last_bit(made.path(f"image/usr/share/engines/{A}"))
    made.path(f"image/usr/share/engines/{B}.sha256").unlink()
    assert made.scons("-q", *arguments).status == 1
    assert made.scons("-n", *arguments).names("WOULD INSTALL") == ["a", "b"]
    run = made.scons(*arguments)
    assert (run.status, run.names("INSTALLED"), run.built) == (0, ["a", "b"], [])
    after = made.snapshot("image")
    assert {name: sha for name, (sha, _) in after.items()} == {n: sha for n, (sha, _) in before.items()}
    same = [name for name in before if A not in name and B not in name]
    assert [after[name] for name in same] == [before[name] for name in same]


def test_an_engine_that_changed_is_installed_again(made: Tree) -> None:
    arguments = ["install", "DESTDIR=image", "PREFIX=/usr"]
    made.scons(*arguments)
    make_model(made.path("models/a.onnx"), seed=3)
    run = made.scons(*arguments)
    assert (run.built, run.names("INSTALLED")) == (["a"], ["a"])
    assert sha256(made.path(f"image/usr/share/engines/{A}")) == sha256(made.engine("a"))


def test_what_lies_in_the_engine_folder_is_not_packed(made: Tree) -> None:
    for name in ("stray__sm80plus_cu13.0_rtx1.7_fp32.engine", "notes.txt"):
        made.path(f"engines/{name}").write_bytes(b"x")
    made.scons("install", "DESTDIR=image", "PREFIX=/usr")
    assert installed(made.path("image")) == PACKED


def test_a_tampered_engine_is_built_again_before_it_is_packed(made: Tree) -> None:
    flip_last_bit(made.engine("a"))
    run = made.scons("install", "DESTDIR=image", "PREFIX=/usr")
    assert (run.status, run.built) == (0, ["a"])
    packed = made.path(f"image/usr/share/engines/{A}")
    assert sha256(packed) == Path(f"{packed}.sha256").read_text()


def test_clean_install_removes_what_was_installed(made: Tree) -> None:
    made.scons("install", "DESTDIR=image", "PREFIX=/usr")
    assert made.scons("-c", "install", "DESTDIR=image", "PREFIX=/usr").status == 0
    assert installed(made.path("image")) == []
    assert sorted(made.engines()) == ["a", "b"]


def test_a_place_that_cannot_be_written_is_one_line(made: Tree) -> None:
    made.path("image").write_text("a file")
    run = made.scons("install", "DESTDIR=image", "PREFIX=/usr")
    assert run.status == 2
    assert "image" in run.out


def test_a_build_without_install_arguments_installs_nothing(made: Tree) -> None:
    run = made.scons("PREFIX=/nowhere")
    assert run.status == 0
    assert run.lines("INSTALLED") == []
    assert not Path("/nowhere").exists()


@pytest.mark.skipif(
    not (shutil.which("mksquashfs") and shutil.which("unsquashfs")), reason="no squashfs-tools here"
)
def test_an_image_is_packed_unpacked_and_verified_with_nothing_but_python(made: Tree, tmp_path: Path) -> None:
    made.scons("install", f"DESTDIR={tmp_path}/root", "PREFIX=/usr")
    images = [tmp_path / "one.squashfs", tmp_path / "two.squashfs"]
    for image in images:
        subprocess.run(
            ["mksquashfs", str(tmp_path / "root"), str(image), "-quiet", "-no-progress", "-all-root",
             "-all-time", "0", "-mkfs-time", "0"],
            check=True,
        )  # fmt: skip
    assert images[0].read_bytes() == images[1].read_bytes()
    device = tmp_path / "device"
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", str(device), str(images[0])], check=True)
    assert installed(device) == PACKED
    folder = device / "usr/share/engines"
    asked = ["verify", "--manifest", str(folder / "manifest.json"), "--hardware", host(tmp_path)]
    done = cli(*asked, bare=True)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 3)
    flip_last_bit(folder / A)
    assert cli(*asked, bare=True).returncode == 13
    elsewhere = ["--hardware", host(tmp_path, compute_capability="7.5", architectures=[75])]
    assert cli(*asked[:3], *elsewhere, bare=True).returncode == 11


# Boards.


def test_a_board_packs_its_own_and_clean_engines_removes_its_own_alone(two: Tree) -> None:
    hardware(two.path("hardware/orin_nx.json"))
    hardware(two.path("hardware/agx_orin.json"), sm_count=16, memory_gib=64)
    two.environment["TRT_PYTHON"] = str(fake_compiler(two.path("fake")))
    two.write(SCRIPT)
    for name in ("orin_nx", "agx_orin"):
        run = two.scons("install", f"HARDWARE={name}", f"DESTDIR={name}", "PREFIX=/usr")
        assert (run.status, run.built) == (0, ["a", "b"])
        manifest = json.loads(two.path(f"{name}/usr/share/engines/manifest.json").read_text())
        assert manifest["hardware"] == name
        assert {e["signature"]["sm_count"] for e in manifest["engines"]} == {8 if name == "orin_nx" else 16}
    theirs = two.snapshot("engines/agx_orin")
    assert two.scons("-c", "engines", "HARDWARE=orin_nx").status == 0
    assert two.snapshot("engines/agx_orin") == theirs
    assert not list(two.path("engines/orin_nx").glob("*"))


def test_several_kinds_of_hardware_are_handed_on_each_by_itself(two: Tree) -> None:
    hardware(two.path("hardware/orin_nx.json"))
    hardware(two.path("hardware/agx_orin.json"), sm_count=16, memory_gib=64)
    two.environment["TRT_PYTHON"] = str(fake_compiler(two.path("fake")))
    two.write(SCRIPT)
    run = two.scons("install", "HARDWARE=orin_nx,agx_orin", "DESTDIR=image", "PREFIX=/usr")
    assert (run.status, len(run.built)) == (0, 4), run.out
    for name in ("orin_nx", "agx_orin"):
        folder = two.path(f"image/usr/share/engines/{name}")
        assert len(list(folder.iterdir())) == 9
        named = f"hardware/{name}.json"
        asked = ["verify", "--manifest", str(folder / "manifest.json"), "--hardware"]
        assert cli(*asked, str(two.path(named))).returncode == 0
        other = "agx_orin" if name == "orin_nx" else "orin_nx"
        assert cli(*asked, str(two.path(f"hardware/{other}.json"))).returncode == 11
