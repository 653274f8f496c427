"""The file of `timing_cache=`: what is written is read again, and what does not fit is named."""

import json

import pytest
from test_options_by_product import ORIN, RTX, SERVER

from scons_tensorrt.errors import RecipeError
from scons_tensorrt.recipe.key_ingredients import value_fields
from scons_tensorrt.recipe.options import Recipe, parse
from scons_tensorrt.recipe.options_by_product import unsupported_options
from scons_tensorrt.recipe.timing_cache_file import TimingFile, compare

KERNELS = {"0x11": "0xa1 conv 1", "0x22": "0xa2"}
FILE = TimingFile(SERVER.key_fields(), KERNELS, bytes(range(256)))


def test_a_file_is_read_as_it_was_written():
    assert TimingFile.load(FILE.dump(), "a.cache") == FILE
    assert TimingFile.load(FILE.dump(), "a.cache").dump() == FILE.dump()


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"{}", b'{"schema": 2}', FILE.dump()[:-9], b"[" * 100_000]
    + [
        json.dumps({**json.loads(FILE.dump()), **change}).encode()
        for change in (
            {"cache": ["*"]},
            {"cache": 3},
            {"kernels": {"0x11": 3}},
            {"hardware": []},
            {"hardware": {}},
        )
    ],
)
def test_any_other_file_is_one_line(data):
    with pytest.raises(
        RecipeError, match=r"^timing_cache a\.cache: not a file that TIMING=record wrote \("
    ) as e:
        TimingFile.load(data, "a.cache")
    assert "\n" not in str(e.value)


def test_a_git_lfs_pointer_is_named():
    with pytest.raises(RecipeError, match=r"^timing_cache a\.cache is a Git LFS pointer, .* `git lfs pull`$"):
        TimingFile.load(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "a.cache")


def test_hardware_and_version_are_named():
    FILE.check_hardware(SERVER, "a.cache")
    with pytest.raises(RecipeError, match=r"recorded with TensorRT 10\.13\.3\.9, not 10\.14\.0\.1; "):
        FILE.check_hardware(SERVER._replace(runtime_version="10.14.0.1"), "a.cache")
    with pytest.raises(RecipeError, match=r"on other hardware \(compute_capability 8\.9, here 9\.0\)"):
        FILE.check_hardware(SERVER._replace(compute_capability="9.0"), "a.cache")
    other = FILE._replace(hardware={"runtime_version": "10.13.3.9", "x": "9" * 1000})
    with pytest.raises(RecipeError, match=r"compute_capability unknown, here 8\.9, .*, …\); each") as error:
        other.check_hardware(SERVER, "a.cache")
    assert len(str(error.value)) < 300


def test_two_maps_are_compared_by_tactic():
    assert not compare(KERNELS, {"0x11": "0xa1", "0x22": "0xa2 add"})
    changes = compare(KERNELS, {"0x11": "0xb1 conv 1", "0x33": "0xa3"})
    assert changes == (("0x11",), ("0x33",), ("0x22",))
    assert changes.describe(2) == "of 2 layers: 1 with another kernel, 1 new, 1 gone"


def test_the_option_is_in_no_field_of_the_key_and_in_the_receipt_by_name():
    recipe = parse("a", {"timing_cache": "models/a.cache"})
    assert value_fields(recipe, SERVER) == value_fields(parse("a", {}), SERVER)
    assert recipe.to_json() == {**parse("a", {}).to_json(), "timing_cache": "a.cache"}
    assert Recipe.from_json("a", recipe.to_json(), [], recipe.timing_cache) == recipe


@pytest.mark.parametrize("value", ["", 3, ["a.cache"], {"nx": 3}, "a\0b"])
def test_what_is_no_path_is_refused(value):
    with pytest.raises(RecipeError, match=r"^timing_cache=.*: write the path of a file, or a map such as "):
        parse("a", {"timing_cache": value})


def test_where_kernels_cannot_be_pinned():
    recipe = parse("a", {"timing_cache": "a.cache"})
    assert unsupported_options(recipe, SERVER) == []
    (old,) = unsupported_options(recipe, ORIN)
    assert old.startswith("timing_cache: needs TensorRT 10.13 or later, and this is 10.3.0.30")
    (rtx,) = unsupported_options(recipe, RTX)
    assert "IRuntimeConfig.set_runtime_cache" in rtx
    (off,) = unsupported_options(recipe._replace(flags=("DISABLE_TIMING_CACHE",)), SERVER)
    assert off.startswith("timing_cache: flag DISABLE_TIMING_CACHE")
    for flag in ("ERROR_ON_TIMING_CACHE_MISS", "EDITABLE_TIMING_CACHE", "DISABLE_COMPILATION_CACHE"):
        (own,) = unsupported_options(recipe._replace(flags=(flag,)), SERVER)
        assert own == f"timing_cache: sets flag {flag} itself where it is needed; leave the flag out"
