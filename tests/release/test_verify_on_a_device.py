"""`verify` on a device: each refusal has its own status, the order is held, nothing slips through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest
from handing import HOST, ORIN_NX, A, B, Handoff, plan, rtx_plan, sha

import scons_tensorrt
from scons_tensorrt.cli import main
from scons_tensorrt.files.writing import remove_tree
from scons_tensorrt.release.manifest import digest
from scons_tensorrt.release.verify_release import Status

pytest_plugins = ["handing"]
SITE = Path(scons_tensorrt.__file__).parents[1]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """The hardware file of the host."""
    path = tmp_path / "orin_nx.json"
    path.write_text(json.dumps(ORIN_NX))
    return path


@pytest.fixture
def verify(handoff: Handoff, board: Path, capsys):
    """Verify the hand-off as a device would; the status and the lines."""

    def verify(*more: object, hardware: object = board, manifest: bool = True) -> tuple[int, list[str]]:
        given = ["--manifest", str(handoff.manifest)] if manifest else []
        status = main(["verify", *given, "--hardware", str(hardware), *map(str, more)])
        said = capsys.readouterr()
        assert said.err == ""
        return status, said.out.splitlines()

    return verify


def resum(handoff: Handoff) -> None:
    """Let the manifest's sidecar state what the manifest now is."""
    handoff.path("manifest.json.sha256").write_text(digest(handoff.manifest.read_bytes()))


def rename(handoff: Handoff) -> None:
    handoff.path(A).rename(handoff.path("A.engine"))
    handoff.path(A + ".sha256").rename(handoff.path("A.engine.sha256"))


def relist(handoff: Handoff, **changes: object) -> None:
    handoff.entries[A] = handoff.entries[A]._replace(**changes)
    handoff.list()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def exchange(handoff: Handoff) -> None:
    """Another engine under this name, with a sidecar that is right."""
    handoff.path(A).write_bytes(plan(b"another"))
    handoff.path(A + ".sha256").write_text(sha(plan(b"another")))


def link(handoff: Handoff) -> None:
    handoff.path(A).rename(handoff.folder.parent / "elsewhere")
    handoff.path(A).symlink_to(handoff.folder.parent / "elsewhere")


REFUSALS = {
    "made for a board with another SM count": (
        lambda h: relist(h, signature={**h.entries[A].signature, "sm_count": 16}),
        (Status.HOST, A, "made for sm_count 16, and this host has 8"),
    ),
    "made by another build of TensorRT": (
        lambda h: relist(h, signature={**h.entries[A].signature, "runtime_version": "10.3.0.26"}),
        (Status.HOST, A, "made for runtime_version 10.3.0.26, and this host has 10.3.0.30"),
    ),
    "its sidecar is gone": (
        lambda h: h.path(A + ".sha256").unlink(),
        (Status.SIDECAR, A, "sidecar missing"),
    ),
    "its sidecar is garbage": (
        lambda h: h.path(A + ".sha256").write_bytes(b"\xff" * 64),
        (Status.SIDECAR, A, "sidecar malformed"),
    ),
    "one flipped byte": (
        lambda h: flip(h.path(A)),
        (Status.SIDECAR_HASH, A, "its sha256 does not match its sidecar"),
    ),
    "the manifest is gone": (
        lambda h: h.manifest.unlink(),
        (Status.MANIFEST, "manifest.json", "not readable"),
    ),
    "the manifest's sidecar is gone": (
        lambda h: h.path("manifest.json.sha256").unlink(),
        (Status.MANIFEST, "manifest.json", "sidecar missing"),
    ),
    "the manifest was edited": (
        lambda h: flip(h.manifest),
        (Status.MANIFEST, "manifest.json", "its sha256 does not match its sidecar"),
    ),
    "the manifest is no manifest": (
        lambda h: (h.manifest.write_bytes(b"{}"), resum(h)),
        (Status.MANIFEST, "manifest.json", "damaged"),
    ),
    "the manifest is a link": (
        lambda h: (
            h.manifest.rename(h.folder.parent / "m"),
            h.manifest.symlink_to(h.folder.parent / "m"),
        ),
        (Status.MANIFEST, "manifest.json", "a symbolic link"),
    ),
    "another engine with its own sidecar": (
        exchange,
        (Status.MANIFEST_HASH, A, "does not match the manifest"),
    ),
    "an engine that is not listed": (
        lambda h: (h.entries.pop(A), h.list()),
        (Status.UNLISTED, A, "not listed in the manifest"),
    ),
    "a file that is not listed": (
        lambda h: h.path("libplugin.so").write_bytes(b"x"),
        (Status.UNLISTED, "libplugin.so", "not listed in the manifest"),
    ),
    "a file in a folder below": (
        lambda h: (h.path("x").mkdir(), h.path("x/y.engine").write_bytes(b"x")),
        (Status.UNLISTED, "x/y.engine", "not listed in the manifest"),
    ),
    "a listed engine is gone": (
        lambda h: (h.path(A).unlink(), h.path(A + ".sha256").unlink()),
        (Status.MISSING, A, "listed in the manifest but missing"),
    ),
    "an engine is gone and its sidecar is not": (
        lambda h: h.path(A).unlink(),
        (Status.MISSING, A, "the engine is missing"),
    ),
    "an engine is a link": (link, (Status.MISSING, A, "a symbolic link, which is never followed")),
}


@pytest.mark.parametrize(("damage", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_each_refusal_has_its_status_and_one_line(handoff: Handoff, verify, damage, expected) -> None:
    damage(handoff)
    spec, name, why = expected
    status, lines = verify()
    refused = [line for line in lines if line.startswith("REFUSED ")]
    assert (status, len(refused)) == (spec, 1)
    assert name in refused[0]
    assert spec.name.lower().replace("_", " ") + ": " in refused[0]
    assert why in refused[0]
    assert not any(line.startswith("OK ") and line.endswith(name) for line in lines)


def test_a_name_that_is_no_engines_is_refused_by_name(handoff: Handoff, verify) -> None:
    rename(handoff)
    status, lines = verify(handoff.path("A.engine"), handoff.path(B))
    assert status == Status.FILENAME
    assert [line.split()[0] for line in lines] == ["REFUSED", "OK", "OK"]


def test_a_whole_handoff_is_ok_engine_by_engine(handoff: Handoff, verify) -> None:
    status, lines = verify()
    assert status == 0
    assert lines == [
        f"OK {handoff.path(A)}",
        f"OK {handoff.path(B)}",
        f"OK {handoff.manifest}: lists 2 engines; signature not checked",
    ]


def test_engines_may_stand_in_another_folder_than_their_manifest(handoff: Handoff, verify, tmp_path) -> None:
    (tmp_path / "opt").mkdir()
    for name in (A, B):
        for each in (name, name + ".sha256"):
            handoff.path(each).rename(tmp_path / "opt" / each)
    assert verify(tmp_path / "opt")[0] == 0
    assert verify()[0] == Status.MISSING


def test_a_folder_that_is_not_there_is_a_manifest_that_is_not_there(tmp_path, board: Path, capsys) -> None:
    asked = ["verify", "--manifest", str(tmp_path / "no/manifest.json"), "--hardware", str(board)]
    assert main(asked) == Status.MANIFEST
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_one_named_engine_is_verified_without_the_others(handoff: Handoff, verify) -> None:
    handoff.path(B).unlink()
    status, lines = verify(handoff.path(A))
    assert (status, lines[0]) == (0, f"OK {handoff.path(A)}")


# The order: of two faults, the earlier check's status ends the program.

FAULTS = [
    (Status.HOST, lambda h: relist(h, signature={**h.entries[A].signature, "memory_gib": 64})),
    (Status.SIDECAR, lambda h: h.path(A + ".sha256").unlink()),
    (Status.SIDECAR_HASH, lambda h: flip(h.path(B))),
    (Status.UNLISTED, lambda h: h.path("stray").touch()),
]


@pytest.mark.parametrize("first", range(len(FAULTS)))
def test_the_earliest_check_that_refuses_is_the_status(handoff: Handoff, verify, first: int) -> None:
    for _, damage in FAULTS[first:]:
        damage(handoff)
    assert verify()[0] == FAULTS[first][0]


def test_one_engine_is_refused_by_its_first_fault_alone(handoff: Handoff, verify) -> None:
    relist(handoff, sha256="0" * 64)
    handoff.path(A + ".sha256").unlink()
    status, lines = verify()
    assert status == Status.SIDECAR
    assert sum(A in line for line in lines) == 1


# The host.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("jetpack", "6.1"),  # in the name
        ("runtime_version", "10.7.0.23"),  # in the name
        ("compute_capability", "8.9"),  # in the name
        ("runtime_version", "10.3.0.26"),  # only the manifest tells
        ("machine", "x86_64"),
        ("gpu_name", "Orin (nvgpu)"),
        ("memory_gib", 8),  # an Orin Nano has the same name and SM
        ("sm_count", 4),
    ],
)
def test_another_host_is_refused(handoff: Handoff, verify, tmp_path, field: str, value: object) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**ORIN_NX, field: value}))
    assert verify(hardware=other)[0] == Status.HOST


def test_what_a_host_does_not_know_of_itself_plays_no_part(handoff: Handoff, verify, tmp_path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({k: v for k, v in ORIN_NX.items() if k != "sm_count"}))
    assert verify(hardware=other)[0] == 0


def test_an_unknown_host_is_refused(handoff: Handoff, verify) -> None:
    status, lines = verify(hardware="xavier")
    assert status == Status.HOST
    assert "the hardware of this host is unknown: HARDWARE=xavier" in lines[0]


AMPERE = "a__sm80plus_cu12.6_trt10.3_fp16.engine"
SERVER = {**ORIN_NX, "compute_capability": "8.6", "gpu_name": "A10", "integrated": False, "cuda": "12.6"}
del SERVER["jetpack"]


def test_an_engine_for_ampere_and_later_is_not_held_to_the_gpu_it_was_made_on(tmp_path, capsys) -> None:
    made = Handoff(tmp_path / "h")
    made.add(AMPERE, plan(b"x"), SERVER, **{"option hardware_compatibility": "ampere_plus"})
    made.list()
    host = tmp_path / "l40.json"
    host.write_text(json.dumps({**SERVER, "compute_capability": "8.9", "gpu_name": "L40", "sm_count": 142}))
    assert main(["verify", "--manifest", str(made.manifest), "--hardware", str(host)]) == 0
    host.write_text(json.dumps({**SERVER, "machine": "x86_64"}))
    assert main(["verify", "--manifest", str(made.manifest), "--hardware", str(host)]) == Status.HOST


RTX = "a__sm80plus_cu13.0_rtx1.7_fp32.engine"
RTX_HOST = {
    "schema": 1,
    "product": "tensorrt_rtx",
    "runtime_version": "1.7.1.116",
    "cuda": "13.0",
    "os": "linux",
    "machine": "x86_64",
    "compute_capability": "8.9",
    "architectures": [89],
}
MASKS = [
    (0x3E, {}, 0, ""),  # SM 80, 86, 89, 120, 121
    (0x36, {}, Status.HOST, "its plan is for SM 80, 86, 120, 121, and this host needs SM 89"),
    (0x3E, {"compute_capability": "8.7", "architectures": [87]}, Status.HOST, "needs SM 87"),
    (0x3E, {"compute_capability": "7.5", "architectures": [75]}, Status.HOST, "this host is sm75"),
    (0x3E, {"runtime_version": "1.7.0.99"}, Status.HOST, "made by TensorRT for RTX 1.7.1.116"),
    (0xFE, {}, Status.HOST, "its plan does not state its architectures"),  # a bit that nobody knows
    (0x7E, {}, 0, ""),  # the default target
    (0x3E, {"compute_capability": "8.0+", "architectures": None}, 0, ""),
    (0x36, {"compute_capability": "8.0+", "architectures": None}, Status.HOST, "needs SM 89"),
    (0x7E, {"compute_capability": "13.0", "architectures": [130]}, 0, ""),  # a later one
    (0x3E, {"compute_capability": "13.0", "architectures": [130]}, Status.HOST, "needs SM 130"),
    *(
        (0x7E, {"compute_capability": cc, "architectures": [sm]}, Status.HOST, f"this host {what}")
        for cc, sm, what in (
            *(("7.5", 75, "is sm75"), ("8.7", 87, "needs SM 87"), ("9.0", 90, "needs SM 90")),
            *(("10.0", 100, "needs SM 100"), ("10.3", 103, "needs SM 103"), ("11.0", 110, "needs SM 110")),
        )
    ),
    (0x3E, {"os": "windows", "machine": "aarch64"}, 0, ""),
    (0x3E, {"compute_capability": "8.0+", "architectures": [80, 89]}, 0, ""),
    (0x36, {"compute_capability": "8.0+", "architectures": [80, 89]}, Status.HOST, "needs SM 89"),
]


@pytest.mark.parametrize(("mask", "host", "spec", "why"), MASKS)
def test_of_an_rtx_engine_the_plans_mask_decides(tmp_path, capsys, mask, host, spec, why) -> None:
    made = Handoff(tmp_path / "h")
    made.add(RTX, rtx_plan(b"x", mask), RTX_HOST)
    made.list()
    path = tmp_path / "host.json"
    fields = {**RTX_HOST, **host}
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))
    assert main(["verify", "--manifest", str(made.manifest), "--hardware", str(path)]) == spec
    assert why in capsys.readouterr().out


def test_hardware_alone_asks_the_name_and_the_plan(handoff: Handoff, verify, tmp_path) -> None:
    assert verify(handoff.path(A), manifest=False) == (0, [f"OK {handoff.path(A)}"])
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**ORIN_NX, "jetpack": "7.0"}))
    assert verify(handoff.path(A), manifest=False, hardware=other)[0] == Status.HOST


# Signatures.


@pytest.fixture
def trusted(handoff: Handoff, keys: tuple[bytes, bytes], tmp_path) -> Path:
    """The hand-off signed; the public key."""
    handoff.list(keys[0])
    path = tmp_path / "trusted.pub"
    path.write_bytes(keys[1])
    return path


def test_a_signed_handoff_is_ok_and_says_by_whom(handoff: Handoff, verify, trusted) -> None:
    status, lines = verify("--trusted-key", trusted)
    assert status == 0
    assert "signed by key " in lines[-1]


def foreign_key(handoff: Handoff) -> None:
    from scons_tensorrt.files.signing_keys import generate

    handoff.list(generate()[0])


def other_payload(handoff: Handoff) -> None:
    """A payload that was not signed, under the old signature."""
    data = json.loads(handoff.envelope.read_text())
    data["payload"] = data["payload"][:-8] + "AAAAfQ=="
    handoff.envelope.write_text(json.dumps(data))


def other_type(handoff: Handoff) -> None:
    data = json.loads(handoff.envelope.read_text())
    data["payloadType"] = "application/json"
    handoff.envelope.write_text(json.dumps(data))


def other_engine(handoff: Handoff) -> None:
    """An attacker's engine, sidecar, manifest and sums, all in order, with the old signed statement."""
    before = handoff.envelope.read_bytes()
    handoff.add(A, plan(b"attack"))
    handoff.list()
    handoff.envelope.write_bytes(before)


UNSIGNED = {
    "no statement": (lambda h: h.envelope.unlink(), "not readable"),
    "garbage": (lambda h: h.envelope.write_bytes(b"\xff"), "damaged"),
    "empty": (lambda h: h.envelope.write_bytes(b""), "empty"),
    "another key": (foreign_key, "not signed by a trusted key"),
    "another payload": (other_payload, "not signed by a trusted key"),
    "another payload type": (other_type, "not signed by a trusted key"),
    "signatures that are none": (
        lambda h: h.envelope.write_text(json.dumps({**json.loads(h.envelope.read_text()), "signatures": []})),
        "not signed by a trusted key",
    ),
    "an attacker's engine in order with all but the signature": (
        other_engine,
        "the signed statement does not match manifest.json",
    ),
}


@pytest.mark.parametrize(("damage", "why"), UNSIGNED.values(), ids=UNSIGNED)
def test_without_a_good_signature_nothing_is_ok(handoff: Handoff, verify, trusted, damage, why) -> None:
    damage(handoff)
    status, lines = verify("--trusted-key", trusted)
    assert status == Status.SIGNATURE
    assert len(lines) == 1
    assert why in lines[0]
    assert verify()[0] == 0  # nobody asked


def test_the_keyid_in_the_envelope_is_believed_by_nobody(handoff: Handoff, verify, trusted) -> None:
    good = json.loads(handoff.envelope.read_text())["signatures"][0]["keyid"]
    foreign_key(handoff)
    data = json.loads(handoff.envelope.read_text())
    data["signatures"][0]["keyid"] = good
    handoff.envelope.write_text(json.dumps(data))
    assert verify("--trusted-key", trusted)[0] == Status.SIGNATURE


def test_one_of_several_trusted_keys_is_enough(handoff: Handoff, verify, trusted, tmp_path) -> None:
    from scons_tensorrt.files.signing_keys import generate

    (tmp_path / "other.pub").write_bytes(generate()[1])
    assert verify("--trusted-key", tmp_path / "other.pub", "--trusted-key", trusted)[0] == 0


def test_an_earlier_refusal_goes_before_the_signature(handoff: Handoff, verify, trusted) -> None:
    handoff.envelope.unlink()
    flip(handoff.path(A))
    status, lines = verify("--trusted-key", trusted)
    assert status == Status.SIDECAR_HASH
    assert len(lines) == 2


@pytest.mark.parametrize("key", ["nothing there", "no key", "an empty folder"])
def test_a_key_that_cannot_be_read_refuses_all(handoff: Handoff, verify, trusted, tmp_path, key) -> None:
    path = tmp_path / "key"
    if key == "no key":
        path.write_text("no key")
    elif key == "an empty folder":
        path.mkdir()
    status, lines = verify("--trusted-key", path)
    assert (status, len(lines)) == (Status.KEY, 1)


def test_without_cryptography_a_signature_refuses_all(handoff: Handoff, verify, trusted, monkeypatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    status, lines = verify("--trusted-key", trusted)
    assert status == Status.KEY
    assert "signatures need cryptography" in lines[0]
    assert verify()[0] == 0


def test_a_trusted_key_without_a_manifest_is_a_wrong_call(handoff: Handoff, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["verify", "--trusted-key", "x", str(handoff.path(A))])
    assert end.value.code == 2


def test_a_fifo_or_a_folder_in_a_place_waits_for_nobody(handoff: Handoff, verify) -> None:
    handoff.path(A).unlink()
    os.mkfifo(handoff.path(A))
    assert verify()[0] == Status.MISSING
    handoff.path(A).unlink()
    handoff.path(A).mkdir()
    assert verify()[0] == Status.MISSING


def test_nothing_but_the_standard_library_is_even_looked_for(handoff: Handoff, board: Path) -> None:
    program = f"""
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("SCons", "filelock", "cryptography", "rich", "numpy", "onnx"):
            sys.exit("tried to import " + name)
sys.meta_path.insert(0, Watch())
sys.path.insert(0, {str(SITE)!r})
from scons_tensorrt.cli import main
sys.exit(main(["verify", "--manifest", {str(handoff.manifest)!r}, "--hardware", {str(board)!r}]))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) == 3


def test_verify_writes_nothing(handoff: Handoff, verify) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in handoff.folder.parent.rglob("*"))
    verify()
    assert sorted((p.name, p.stat().st_mtime_ns) for p in handoff.folder.parent.rglob("*")) == before


def test_every_status_is_one_of_its_own_and_in_the_docs() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "firmware.md").read_text()
    for status in Status:
        assert f"| {int(status)} |" in docs
    assert HOST.sm == 87


# keygen


def test_keygen_writes_a_pair_that_signs_and_is_trusted(handoff: Handoff, verify, tmp_path, capsys) -> None:
    pytest.importorskip("cryptography")
    key = tmp_path / "release.pem"
    assert main(["keygen", str(key)]) == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text().splitlines()[1] not in capsys.readouterr().out
    handoff.list(key.read_bytes())
    assert verify("--trusted-key", f"{key}.pub")[0] == 0


def test_keygen_makes_a_missing_folder_for_its_owner_alone(tmp_path) -> None:
    pytest.importorskip("cryptography")
    assert main(["keygen", str(tmp_path / "keys" / "release.pem")]) == 0
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == ["release.pem", "release.pem.pub"]


@pytest.mark.parametrize("command", ["keygen", "certificates"])
@pytest.mark.parametrize("below", ["keys/release", "keys/deep/release"])
def test_what_writes_keys_names_the_file_that_is_not_a_folder(tmp_path, capsys, command, below) -> None:
    pytest.importorskip("cryptography")
    (tmp_path / "keys").write_text("")
    assert main([command, str(tmp_path / below)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"EngineError: {tmp_path / 'keys'}")
    assert line.endswith(f": {tmp_path / 'keys'} is not a folder; remove it, or move it away")


@pytest.mark.parametrize("there", ["release.pem", "release.pem.pub"])
def test_keygen_overwrites_nothing(tmp_path, capsys, there: str) -> None:
    (tmp_path / there).write_text("mine")
    assert main(["keygen", str(tmp_path / "release.pem")]) == 1
    assert (tmp_path / there).read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == [there]


# What a hand-off is beside its engines.


@pytest.mark.parametrize("fault", ["gone", "changed"])
def test_sums_that_are_gone_or_say_something_else_are_refused(handoff, verify, fault):
    sums = handoff.path("SHA256SUMS")
    if fault == "gone":
        sums.unlink()
    else:
        sums.write_bytes(sums.read_bytes().replace(b"0", b"1"))
    status, lines = verify()
    assert status == Status.MANIFEST
    assert any("SHA256SUMS: manifest: " in line for line in lines)
    assert not any(line.startswith("OK") for line in lines)


def test_an_engine_in_a_subfolder_is_not_where_the_manifest_lists_it(handoff, verify):
    inner = handoff.path("inner")
    inner.mkdir()
    for name in (A, A + ".sha256"):
        handoff.path(name).rename(inner / name)
    status, lines = verify()
    assert status == Status.UNLISTED
    assert f"REFUSED {inner / A}: unlisted: the manifest lists it in {handoff.folder}" in "\n".join(lines)
    assert f"REFUSED {A}: missing: listed in the manifest but missing" in lines


def test_terabytes_of_a_hole_are_not_hashed(handoff, verify):
    with open(handoff.path(A), "r+b") as engine:
        engine.truncate(8 << 40)
    status, lines = verify()
    assert status == Status.SIDECAR_HASH
    assert f"it has {8 << 40} bytes" in "\n".join(lines)
    status, lines = verify(handoff.path(A), manifest=False)
    assert status == Status.SIDECAR_HASH


def test_folders_nested_more_deeply_than_python_recurses(handoff, verify):
    where = os.open(handoff.folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=where)
        inner = os.open("d", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = inner
    os.close(os.open("stranger", os.O_CREAT | os.O_WRONLY, dir_fd=where))
    os.close(where)
    status, lines = verify()
    assert status == Status.UNLISTED
    assert len(lines) == len([line for line in lines if line])
    assert main(["verify", str(handoff.folder)]) == 0
    remove_tree(handoff.path("d"))  # pytest cannot


def test_engines_of_rtx_are_verified_by_python_alone(tmp_path):
    """No TensorRT, no SCons, no numpy: `-S` leaves out every package."""
    handoff = Handoff(tmp_path / "handoff")
    name = "a__sm80plus_cu13.0_rtx1.7_fp32.engine"
    signature = {
        "product": "tensorrt_rtx",
        "runtime_version": "1.7.1.116",
        "os": "linux",
        "machine": os.uname().machine,
        "compute_capability": "8.0+",
        "architectures": [80, 86, 89, 120, 121],
    }
    handoff.add(name, rtx_plan(b"x"), signature)
    handoff.list()
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from scons_tensorrt.cli import main; "
    command = [sys.executable, "-S", "-E", "-c", program + "sys.exit(main(sys.argv[1:]))", str(SITE)]
    done = subprocess.run(
        [*command, "verify", "--manifest", str(handoff.manifest)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "runtime version not checked: this Python has no TensorRT for RTX" in done.stdout
    handoff.path(name).write_bytes(rtx_plan(b"y"))
    done = subprocess.run(
        [*command, "verify", "--manifest", str(handoff.manifest)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Status.SIDECAR_HASH


FIELDS = {
    "product": "tensorrt_rtx",
    "runtime_version": "1.7.1.116",
    "os": "linux",
    "machine": os.uname().machine,
    "compute_capability": "8.0+",
    "architectures": [80, 86, 89, 120, 121],
}
PORTABLE = "a__sm80plus_cu13.0_rtx1.7_fp32.engine"


def verify_by_zipapp(
    tmp_path: Path, driver: Path, handoff: Handoff, *more: str
) -> subprocess.CompletedProcess[str]:
    """Verify with one file, as docs/firmware.md builds it, on a host whose driver tells of an Orin."""
    file = tmp_path / "scons-tensorrt.pyz"
    zipapp.create_archive(SITE, file, main="scons_tensorrt.cli:run", compressed=True)
    return subprocess.run(
        [sys.executable, "-S", str(file), "verify", "--manifest", str(handoff.manifest), *more],
        env={**os.environ, "LD_LIBRARY_PATH": str(driver)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_zip_file_asks_the_driver(tmp_path, driver):
    handoff = Handoff(tmp_path / "handoff")
    handoff.add(PORTABLE, rtx_plan(b"x"), FIELDS)
    handoff.list()
    done = verify_by_zipapp(tmp_path, driver, handoff)
    assert (done.returncode, done.stderr) == (Status.HOST, "")
    assert "this host needs SM 87" in done.stdout


def test_a_zip_file_asks_another_interpreter(tmp_path, driver):
    handoff = Handoff(tmp_path / "handoff")
    handoff.add(PORTABLE, rtx_plan(b"x"), FIELDS)
    handoff.list()
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    done = verify_by_zipapp(tmp_path, driver, handoff, "--python", str(other))
    assert "Not a directory" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "is not installed for" in done.stdout or "this host is" in done.stdout


def test_a_wrong_jetpack_is_refused_where_the_runtime_is_missing_too(tmp_path, driver):
    handoff = Handoff(tmp_path / "handoff")
    handoff.add(PORTABLE, rtx_plan(b"x"), FIELDS)
    handoff.list()
    done = verify_by_zipapp(tmp_path, driver, handoff, "--jetpack", "6.2")
    assert done.returncode == Status.HOST
    assert "JETPACK=6.2: this host is not a Jetson; leave it out" in done.stdout


def test_without_a_runtime_a_manifest_of_several_releases_is_refused(tmp_path, driver):
    handoff = Handoff(tmp_path / "handoff")
    handoff.add(PORTABLE, rtx_plan(b"x"), FIELDS)
    other = PORTABLE.replace("rtx1.7", "rtx1.8")
    handoff.add(other, rtx_plan(b"y"), {**FIELDS, "runtime_version": "1.8.0.10"})
    handoff.list()
    done = verify_by_zipapp(tmp_path, driver, handoff)
    assert done.returncode == Status.HOST
    assert "several releases of TensorRT for RTX (1.7.1.116 on cu13.0, 1.8.0.10 on cu13.0)" in done.stdout
