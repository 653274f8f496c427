"""An engine or sidecar that is not what was built is rebuilt: that pair alone, with the reason."""

import shutil

import pytest

from conftest import Tree, flip_last_bit, sha256, sound


def truncate(tree: Tree) -> None:
    data = tree.engine("a").read_bytes()
    tree.engine("a").write_bytes(data[: len(data) // 2])


def lengthen(tree: Tree) -> None:
    with open(tree.engine("a"), "ab") as out:
        out.write(b"x")


def replace_with_b(tree: Tree) -> None:
    shutil.copy(tree.engine("b"), tree.engine("a"))
    shutil.copy(tree.sidecar("b"), tree.sidecar("a"))


TAMPERINGS = {
    "one flipped byte": (lambda t: flip_last_bit(t.engine("a")), "was modified after it was built"),
    "truncated": (truncate, "the engine is truncated: "),
    "one byte longer": (lengthen, "the engine has "),
    "empty": (lambda t: t.engine("a").write_bytes(b""), "the engine is empty"),
    "engine gone": (lambda t: t.engine("a").unlink(), "the engine is missing"),
    "replaced with its sidecar by another": (replace_with_b, "the engine"),
    "sidecar gone": (lambda t: t.sidecar("a").unlink(), "its sidecar is missing"),
    "sidecar empty": (lambda t: t.sidecar("a").write_bytes(b""), "its sidecar is empty"),
    "sidecar garbage": (lambda t: t.sidecar("a").write_bytes(b"\xff" * 64), "its sidecar is malformed"),
    "sidecar of another": (
        lambda t: shutil.copy(t.sidecar("b"), t.sidecar("a")),
        "its sidecar belongs to another engine",
    ),
}


@pytest.mark.parametrize(("tamper", "reason"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_that_pair_alone_is_rebuilt(built: Tree, tamper, reason: str) -> None:
    bytes_before = sha256(built.engine("a"))
    built.scons()  # warm: the memo has everything
    tamper(built)
    other = {name: stamp for name, stamp in built.snapshot().items() if "/b__" in name}
    assert built.scons("-q", "engines").status == 1
    dry = built.scons("-n", "engines")
    assert (dry.names("WOULD BUILD"), dry.names("WOULD REUSE")) == (["a"], ["b"])
    run = built.scons()
    assert (run.status, run.built, run.reused) == (0, ["a"], ["b"])
    assert reason in run.reason("a")
    assert run.reason("a") == dry.reason("a")
    assert sound(built.engine("a"))
    assert sha256(built.engine("a")) == bytes_before
    assert {n: s for n, s in built.snapshot().items() if "/b__" in n} == other
    assert built.scons("-q", "engines").status == 0


def lose_receipt(tree: Tree) -> None:
    for path in tree.path(".trt/receipts").rglob("a__*/*.json"):
        path.unlink()


def damage_receipt(tree: Tree) -> None:
    for path in tree.path(".trt/receipts").rglob("a__*/*.json"):
        path.write_bytes(path.read_bytes().replace(b"fp32", b"fp16"))


@pytest.mark.parametrize("harm", [lose_receipt, damage_receipt])
@pytest.mark.parametrize("verify", ["stat", "full"])
def test_a_receipt_that_the_memo_knows_is_still_asked(built: Tree, harm, verify: str) -> None:
    for _ in range(2):
        assert built.scons().reused == ["a", "b"]
    assert ".trt/receipts/" in built.path(".trt/digests.json").read_text()
    harm(built)
    run = built.scons("engines", f"VERIFY={verify}")
    assert (run.built, run.reused) == (["a"], ["b"])
    assert run.reason("a") == "the engine has no receipt"


def test_tampering_is_an_event_with_its_reason(built: Tree) -> None:
    flip_last_bit(built.engine("a"))
    built.scons()
    mismatches = [e for e in built.events() if e["event"] == "engine.sidecar.mismatch"]
    assert [(e["model_name"], e["reason"]) for e in mismatches] == [("a", "engine_tampered")]


def test_tampering_without_a_sconsign_is_seen_too(built: Tree) -> None:
    built.path(".sconsign.dblite").unlink()
    flip_last_bit(built.engine("a"))
    run = built.scons()
    assert (run.built, run.reused) == (["a"], ["b"])


def test_a_sidecar_with_a_newline_is_still_right(built: Tree) -> None:
    with open(built.sidecar("a"), "a") as out:
        out.write("\n")
    assert built.scons().reused == ["a", "b"]


def test_debug_explain_blames_the_recorded_bytes(built: Tree) -> None:
    flip_last_bit(built.engine("a"))
    out = built.scons("-n", "--debug=explain", "engines").out
    assert "`the recorded bytes of engine and sidecar' changed" in out


def test_a_damaged_receipt_counts_as_none(built: Tree) -> None:
    for path in built.path(".trt/receipts").rglob("*.json"):
        if path.parent.name.startswith("a__"):
            path.write_text(path.read_text().replace('"size"', '"sise"'))
    run = built.scons()
    assert (run.built, run.reused) == (["a"], ["b"])
