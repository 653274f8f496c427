"""An engine that somebody else brings is checked and published as one that was compiled here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from conftest import fake_compiler, hardware
from scons_tensorrt.artifact.filename import EngineFilename
from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.build.build_context import BuildContext, ProvidedFile
from scons_tensorrt.build.build_engine import build_engine
from scons_tensorrt.build.engine_spec import EngineSpec
from scons_tensorrt.errors import EngineBuildError
from scons_tensorrt.files.digest_cache import DigestCache
from scons_tensorrt.hardware.choose_hardware import resolve
from scons_tensorrt.hardware.runtime import Interpreter
from scons_tensorrt.recipe.key_ingredients import input_name, value_fields
from scons_tensorrt.recipe.options import parse

PLAN = b"ftrt" + b"\0" * 60 + b"an engine"


class Bringer:
    """A provider of these bytes; None: it has none."""

    reads_inputs = False

    def __init__(self, data: bytes | None, before=lambda: None) -> None:
        self.data, self.before, self.asked = data, before, 0

    def supply(self, spec, partial, context):
        self.asked += 1
        self.before()
        if self.data is None:
            partial.write_bytes(b"what a transfer that was cut off left")
            return None
        partial.write_bytes(self.data)
        digest = hashlib.sha256(self.data).hexdigest()
        return ProvidedFile("fetched", digest, len(self.data), {"fetched": {"from": "test"}}, 0.5)


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def made(self, spec, receipt) -> None:
        self.heard.append(f"made {receipt.sha256[:8]}")

    def refused(self, spec, error) -> None:
        self.heard.append(f"refused: {error}")


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    onnx = tmp_path / "a.onnx"
    onnx.write_bytes(b"onnx")
    found = resolve(str(hardware(tmp_path / "orin.json")), tmp_path, lambda product: None)
    recipe = parse("a", {}, [])
    ingredients = {
        **value_fields(recipe, found.signature),
        input_name("onnx"): hashlib.sha256(b"onnx").hexdigest(),
    }
    name = EngineFilename.of(found.signature, "a", "fp32").build()
    return EngineSpec(tmp_path / "engines" / name, recipe, found, ingredients, onnx, "a.onnx", {})


def context(tmp_path: Path, *providers, act: str = "done(write())", **more) -> BuildContext:
    state = StateFolder(tmp_path / ".trt", tmp_path)
    python = fake_compiler(tmp_path / "fake", act)
    digest_cache = DigestCache(state.digests, tmp_path, False)
    interpreter = Interpreter(str(python), tmp_path / "interpreter.json")
    return BuildContext(state, digest_cache, interpreter, providers=providers, **more)


def test_what_a_supplier_brings_is_published_with_its_receipt(tmp_path, spec) -> None:
    listener = Listener()
    outcome = build_engine(spec, context(tmp_path, Bringer(PLAN), listeners=[listener]))
    assert (outcome.how, outcome.size, outcome.seconds) == ("fetched", len(PLAN), 0.5)
    assert spec.engine.read_bytes() == PLAN
    (receipt,) = (tmp_path / ".trt" / "receipts").glob("*/*.json")
    assert json.loads(receipt.read_text())["fetched"] == {"from": "test"}
    assert listener.heard == []  # not told of what a provider supplied
    assert build_engine(spec, context(tmp_path, Bringer(None))).how == "reused"


def test_suppliers_are_asked_in_order_and_a_miss_leaves_nothing_for_the_compile(tmp_path, spec):
    listener, missing, bringing = Listener(), Bringer(None), Bringer(PLAN)
    assert build_engine(spec, context(tmp_path, missing, bringing)).how == "fetched"
    assert (missing.asked, bringing.asked) == (1, 1)
    spec.engine.unlink()
    outcome = build_engine(spec, context(tmp_path, Bringer(None), listeners=[listener]))
    assert outcome.how == "built"
    assert listener.heard == [f"made {outcome.sha256[:8]}"]
    assert spec.engine.read_bytes().startswith(b"ftrt")


def test_a_supplied_plan_that_cannot_be_the_wanted_one_is_not_taken(tmp_path, spec) -> None:
    said: list[str] = []
    rtx = b"vtrt" + b"\0" * 12 + (64).to_bytes(8, "little") + b"\0" * 40
    outcome = build_engine(spec, context(tmp_path, Bringer(rtx), say=said.append))
    assert outcome.how == "built"
    assert "is not used: the compiler wrote an invalid engine: it is a plan of tensorrt_rtx" in said[0]


def test_an_input_that_changes_while_the_engine_comes_is_told(tmp_path, spec) -> None:
    changing = Bringer(PLAN, lambda: spec.onnx.write_bytes(b"another"))
    with pytest.raises(EngineBuildError, match="changed while"):
        build_engine(spec, context(tmp_path, changing))
    assert not spec.engine.exists()
    assert not list((tmp_path / ".trt").rglob("partial/*/*"))


@pytest.mark.parametrize("lasting", [True, False])
def test_takers_hear_of_a_refusal_that_every_host_would_repeat(tmp_path, spec, lasting) -> None:
    event = {"event": "error", "error_class": "EngineBuildError", "message": "no such op"}
    event["lasting"] = lasting
    act, listener = f"print(json.dumps({event!r}), flush=True)", Listener()
    with pytest.raises(EngineBuildError, match="no such op; log:") as told:
        build_engine(spec, context(tmp_path, act=act, listeners=[listener]))
    assert told.value.lasting == lasting
    assert listener.heard == ["refused: no such op"] * lasting
