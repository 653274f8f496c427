"""The table of `query what-if` agrees with the Python API of each version that is known."""

import json
import re

import pytest

from conftest import REPO
from scons_tensorrt.hardware.signature import HardwareSignature
from scons_tensorrt.recipe.builder_settings import LISTS, POOLS, WORDS
from scons_tensorrt.recipe.options import FLAGS
from scons_tensorrt.recipe.options_by_version import VERSIONS, absent_options
from scons_tensorrt.worker.trt.settings import ATTRIBUTES

SURFACES = sorted((REPO / "tests/build/surfaces").glob("*.json"))
LIST_OF = {
    "tactic_sources": "TacticSource",
    "preview_features": "PreviewFeature",
    "parser_flags": "OnnxParserFlag",
}


def absent_in(api, strong):
    """The options that an API does not have."""
    found = {f"flag {name}" for name in FLAGS if name not in api["BuilderFlag"]}
    found |= {f"memory_pools {name}" for name in POOLS if name.upper() not in api["MemoryPoolType"]}
    for option, (attribute, enumeration) in ATTRIBUTES.items():
        if attribute not in api["IBuilderConfig"]:
            found.add(option)
        elif enumeration:
            absent = [word for word in WORDS[option] if word.upper() not in api[enumeration]]
            found |= {f"{option} {word}" for word in absent}
    if "plugins_to_serialize" not in api["IBuilderConfig"]:
        found.add("plugins_to_serialize")
    for option, enumeration in LIST_OF.items():
        found |= {f"{option} {name}" for name in LISTS[option] if name not in api.get(enumeration, ())}
    if not strong:
        names = ("fp16", "bf16", "int8", "fp8", "tf32")
        found |= {f"precision {name}" for name in names if name.upper() not in api["BuilderFlag"]}
    return found


@pytest.mark.parametrize("file", SURFACES, ids=lambda file: file.stem)
def test_a_known_version_has_exactly_these_options(file):
    product, version = re.fullmatch(r"(\w+)-(.*)", file.stem).groups()
    signature = HardwareSignature(product, version, "linux", "x86_64", "8.9")
    absent = list(absent_options(signature))
    assert all(each.sure for each in absent)
    strong = product == "tensorrt_rtx" or version.startswith("11")
    listed = {each.option for each in absent}
    listed = {name for name in listed if name.partition(" ")[0] not in listed or " " not in name}
    assert listed == absent_in(json.loads(file.read_text())["api"], strong)


def test_every_version_with_a_surface_is_in_the_table():
    found = {tuple(map(int, f.stem.split("-")[1].split(".")[:2])) for f in SURFACES if "rtx" not in f.stem}
    assert tuple(sorted(found)) == VERSIONS


def test_between_two_versions_an_option_of_one_is_not_known():
    signature = HardwareSignature("tensorrt", "10.7.0.1", "linux", "x86_64", "8.9")
    (tiling,) = [each for each in absent_options(signature) if each.option == "tiling_optimization_level"]
    assert not tiling.sure
    assert tiling.why == "not known for TensorRT 10.7.0.1: only one of 10.3 and 10.13 has it"
