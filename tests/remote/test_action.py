"""What travels: an engine as it is wanted, and no more than is true."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from scons_tensorrt.artifact.filename import EngineFilename
from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.build.engine_spec import TIMINGS, EngineSpec
from scons_tensorrt.errors import DispatchError
from scons_tensorrt.hardware.choose_hardware import Hardware
from scons_tensorrt.hardware.signature import HardwareSignature
from scons_tensorrt.recipe.key_ingredients import input_name, value_fields
from scons_tensorrt.recipe.options import parse
from scons_tensorrt.remote.action import Action, write_action

SIGNATURE = HardwareSignature(
    *("tensorrt", "10.3.0.30", "linux", "aarch64", "8.7"), sm_count=8, jetpack="6.2"
)


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    """An engine of a model with external data, two plugins in an order of their own, a profile."""
    top = tmp_path / "top"
    files = {
        input_name("onnx"): top / "models/a.onnx",
        input_name("data", "w/1.bin"): top / "models/w/1.bin",
        input_name("data", "x.bin"): tmp_path / "elsewhere/x.bin",
        input_name("plugin", "z.so"): top / "z.so",
        input_name("plugin", "a.so"): tmp_path / "lib/a.so",
    }
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    plugins = [path for name, path in files.items() if "plugin" in name]
    options = {"shapes": {"x": ((1, 3), (2, 3), (4, 3))}, "flags": ["REFIT"], "timeout_s": 7}
    recipe = parse("a", {**options, "plugins": plugins}, plugins)
    ingredients = value_fields(recipe, SIGNATURE)
    ingredients.update({n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items()})
    external = {
        "w/1.bin": files[input_name("data", "w/1.bin")],
        "x.bin": files[input_name("data", "x.bin")],
    }
    return EngineSpec(
        top / "engines/nx" / EngineFilename.of(SIGNATURE, "a", "fp32").build(),
        recipe,
        Hardware("nx", SIGNATURE, "HARDWARE=nx"),
        ingredients,
        files[input_name("onnx")],
        "models/a.onnx",
        external,
    )


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "top/.trt", tmp_path / "top")


def test_what_comes_out_is_what_was_wanted(spec: EngineSpec, state, tmp_path) -> None:
    data, inputs = write_action(spec, state)
    action = Action.read(data)
    there = action.spec(tmp_path / "there")
    assert (there.key, there.filename, action.key) == (spec.key, spec.filename, spec.key)
    assert there.recipe == spec.recipe._replace(plugins=there.recipe.plugins)
    assert [path.name for path in there.recipe.plugins] == ["z.so", "a.so"]
    assert there.hardware[:2] == spec.hardware[:2]
    assert dict(there.inputs()) == dict(
        zip(there.inputs(), [path for _, path in action.places(tmp_path / "there")])
    )
    assert there.inputs().keys() == spec.inputs().keys()
    assert [path for _, path in inputs] == list(spec.inputs().values())
    assert len({each.label for each in action.inputs}) == 5
    assert write_action(spec, state)[0] == data


def test_nothing_of_this_host_travels(spec: EngineSpec, state, tmp_path) -> None:
    assert str(tmp_path) not in write_action(spec, state)[0].decode()


LIES = [
    (lambda a: a["inputs"][0].__setitem__(1, "../../etc/passwd"), "not a path inside a folder"),
    (lambda a: a["inputs"][0].__setitem__(1, "/etc/passwd"), "not a path inside a folder"),
    (lambda a: a["inputs"][0].__setitem__(1, "a\0b"), "not a path inside a folder"),
    (lambda a: a["inputs"][0].__setitem__(1, ""), "not a path inside a folder"),
    (lambda a: a["inputs"][0].__setitem__(2, "0" * 64), "inputs do not match its ingredients"),
    (lambda a: a["inputs"].pop(), "another version"),  # a plugin that the recipe names
    (lambda a: a["inputs"].pop(0), "no ONNX"),
    (lambda a: a["recipe"].update(flags=[]), "do not match its recipe and hardware"),
    (lambda a: a["recipe"].update(precision="int8"), "do not match its recipe and hardware"),
    (lambda a: a["recipe"].pop("profiles"), "another version"),
    (lambda a: a["hardware"]["signature"].update(sm_count=4), "do not match its recipe and hardware"),
    (lambda a: a["hardware"].pop("signature"), "damaged"),
    (lambda a: a.update(engine="../a.engine"), "damaged"),
    (lambda a: a.update(schema=3), "another version"),
    (lambda a: a.update(inputs=[[1]]), "damaged"),
    (lambda a: a.update(ingredients=[]), "damaged"),
    (lambda a: a.update(timeout_s=10**400), "damaged"),
    (lambda a: a.update(timeout_s="nan"), "damaged"),
    (lambda a: a.update(timeout_s=float("nan")), "damaged"),
    (lambda a: a.update(timeout_s=-1), "damaged"),
    (lambda a: a["inputs"][0].__setitem__(1, "\ud800"), "damaged"),
    (lambda a: a["inputs"][0].__setitem__(3, float("inf")), "damaged"),
    (lambda a: a.update(source="\ud800"), "damaged"),
]


@pytest.mark.parametrize(("lie", "words"), LIES)
def test_what_is_not_true_of_an_action_is_refused(spec: EngineSpec, state, tmp_path, lie, words) -> None:
    data = json.loads(write_action(spec, state)[0])
    lie(data)
    with pytest.raises(DispatchError, match=words):
        Action.read(json.dumps(data).encode()).spec(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"[" * 99999])
def test_garbage_is_no_action(data) -> None:
    with pytest.raises(DispatchError):
        Action.read(data)


@pytest.mark.parametrize("location", ["../../outside/x.bin", "/outside/x.bin", "w/../../x.bin", "", "a\0b"])
def test_a_location_of_external_data_outside_the_place_is_refused(
    spec: EngineSpec, state, tmp_path, location
) -> None:
    """The compile makes folders and a link at the location, below a folder of its own."""
    data = json.loads(write_action(spec, state)[0])
    old, new = input_name("data", "w/1.bin"), "input data " + location
    data["ingredients"][new] = data["ingredients"].pop(old)
    for each in data["inputs"]:
        each[0] = new if each[0] == old else each[0]
    with pytest.raises(DispatchError, match="not a path inside a folder"):
        Action.read(json.dumps(data).encode()).spec(tmp_path)


def test_a_timing_cache_travels_and_no_earlier_version_ignores_it(spec: EngineSpec, state, tmp_path) -> None:
    cache = tmp_path / "top/models/a.cache"
    cache.write_text("kernels")
    ingredients = {**spec.ingredients, TIMINGS: hashlib.sha256(b"kernels").hexdigest()}
    spec = spec._replace(recipe=spec.recipe._replace(timing_cache=cache), ingredients=ingredients)
    data, _ = write_action(spec, state)
    there = Action.read(data).spec(tmp_path / "there")
    assert there.key == spec.key
    assert there.recipe.timing_cache == tmp_path / "there/inputs/models/a.cache"
    assert json.loads(data)["schema"] == 2
    lie = json.loads(data)
    del lie["recipe"]["timing_cache"]
    with pytest.raises(DispatchError, match="inputs do not match its recipe"):
        Action.read(json.dumps(lie).encode()).spec(tmp_path / "there")
