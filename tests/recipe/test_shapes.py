"""Optimization profiles: what may be written as `shapes`, and what fits a model's inputs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scons_tensorrt.errors import RecipeError
from scons_tensorrt.recipe.onnx.summary import OnnxInput
from scons_tensorrt.recipe.shapes import parse_profiles, problems, text

LOW, USUAL, HIGH = (1, 3, 32, 32), (1, 3, 64, 64), (4, 3, 128, 128)
IMAGE = OnnxInput("x", (-1, 3, -1, -1))

GOOD = [
    (None, ()),
    ({}, ()),
    ([], ()),
    ({"x": (1, 3)}, ({"x": ((1, 3),) * 3},)),  # one shape
    ({"x": [1, 3]}, ({"x": ((1, 3),) * 3},)),  # as a list
    ({"x": (5,)}, ({"x": ((5,),) * 3},)),  # of rank 1
    ({"x": (1, 2, 3)}, ({"x": ((1, 2, 3),) * 3},)),  # three sizes are one shape of rank 3
    ({"x": ((1,), (2,), (3,))}, ({"x": ((1,), (2,), (3,))},)),  # three shapes of rank 1
    ({"x": [[1], [2], [3]]}, ({"x": ((1,), (2,), (3,))},)),  # as lists
    ({"x": (LOW, USUAL, HIGH)}, ({"x": (LOW, USUAL, HIGH)},)),
    ({"x": ()}, ({"x": ((), (), ())},)),  # a scalar
    ({"x": ((), (), ())}, ({"x": ((), (), ())},)),  # a scalar, three times
    ({"x": (0, 2)}, ({"x": ((0, 2),) * 3},)),  # empty
    ([{"x": (1,)}, {"x": (2,)}], ({"x": ((1,),) * 3}, {"x": ((2,),) * 3})),  # two profiles
]


@pytest.mark.parametrize(("written", "parsed"), GOOD, ids=[str(w) for w, _ in GOOD])
def test_what_may_be_written_as_shapes(written, parsed):
    assert parse_profiles(written) == parsed


BAD = [
    ("1x3x32x32", "write a map"),  # text
    (5, "write a map"),  # a number
    ((1, 3, 32, 32), "shapes=(1, 3, 32, 32): write a map"),  # a shape without the input's name
    ((1, 3, 32, 32), "such as shapes={'image': (1, 3, 32, 32)}"),
    ([(1, 3)], "shapes=[(1, 3)]: write a map"),  # a list of shapes
    ([{"x": (1, 3)}, {}], "shapes=[{'x': (1, 3)}, {}]: write a map"),  # an empty profile
    ({"x": 5}, "input `x`"),  # a number is no shape
    ({"x": None}, "input `x`"),  # nothing
    ({"x": "1x3"}, "input `x`"),  # text
    ({"x": ("1", "3")}, "input `x`"),  # sizes as text
    ({"x": ("", "", "")}, "input `x`"),  # three empty texts are not three scalars
    ({"x": b"ab"}, "input `x`"),  # bytes are not sizes
    ({"x": (1.0, 3)}, "input `x`"),  # a fraction
    ({"x": (True, 3)}, "input `x`"),  # a bool is an int to Python
    ({"x": (1 << 31,)}, "input `x`"),  # over what TensorRT's sizes hold
    ({"x": ((1,), (2,))}, "input `x`"),  # two shapes
    ({"x": ((1,), (2,), (3,), (4,))}, "input `x`"),  # four
    ({"x": ((1,), (2,), 3)}, "input `x`"),  # a shape and a size mixed
    ({"x": {"min": (1,)}}, "input `x`"),  # a map
    ({"x": {1, 3}}, "input `x`"),  # a set has no order
]


@pytest.mark.parametrize(("written", "reason"), BAD, ids=[str(w) for w, _ in BAD])
def test_what_may_not_be_written_is_refused_with_what_to_write(written, reason):
    with pytest.raises(RecipeError, match=re.escape(reason)) as caught:
        parse_profiles(written)
    assert "write" in str(caught.value)


@pytest.mark.parametrize("written", [0, False, ""])
def test_something_that_is_neither_none_nor_a_map_is_not_passed_over_in_silence(written):
    with pytest.raises(RecipeError, match="write a map"):
        parse_profiles(written)


sizes = st.lists(st.integers(0, 9999), max_size=6).map(tuple)


@given(sizes)
def test_one_shape_is_the_smallest_the_usual_and_the_largest(shape):
    assert parse_profiles({"x": shape}) == parse_profiles({"x": (shape, shape, shape)})


@given(st.tuples(sizes, sizes, sizes), st.tuples(sizes, sizes, sizes))
def test_the_text_of_bounds_tells_them_apart(one, other):
    assert (text(one) == text(other)) is (one == other)


def test_the_text_of_bounds_for_people():
    assert text((LOW, USUAL, HIGH)) == "1x3x32x32..1x3x64x64..4x3x128x128"
    assert text((LOW, LOW, LOW)) == "1x3x32x32"
    assert text(((), (), ())) == "scalar"


def faults(shapes, *inputs):
    return problems(parse_profiles(shapes), inputs)


FITS = [
    ({"x": (LOW, USUAL, HIGH)}, [IMAGE]),  # a range
    ({"x": LOW}, [IMAGE]),  # one shape
    (None, [OnnxInput("x", (1, 3))]),  # a static input needs none
    ({"x": (1, 3)}, [OnnxInput("x", (1, 3))]),  # and may have its own
    ({"x": (2, 2)}, [OnnxInput("x", None)]),  # any rank where none is known
    ({"x": ()}, [OnnxInput("x", ())]),  # a scalar
    ({"s": (-1, 0)}, [OnnxInput("s", (2,), 7)]),  # the values of a shape tensor
    ({"s": (5,)}, [OnnxInput("s", (), 6)]),  # of one number
    ({"n": (7,)}, [OnnxInput("n", (-1,), 7)]),  # whole numbers, but how many is a size
    (None, []),  # a model without inputs
    ([{"x": LOW}, {"x": HIGH}], [IMAGE]),  # two profiles
    ({"x": (0, 3, 1, 1)}, [IMAGE]),  # an empty batch
]


@pytest.mark.parametrize(("shapes", "inputs"), FITS, ids=str)
def test_shapes_that_fit_have_no_problem(shapes, inputs):
    assert faults(shapes, *inputs) == []


MISFITS = [
    (None, [IMAGE], "input `x` [-1, 3, -1, -1] is dynamic: write shapes={'x': (min, opt, max)}"),
    (None, [OnnxInput("x", None)], "input `x` [rank unknown] is dynamic"),
    ({"y": LOW}, [OnnxInput("x", (1,))], "shapes: the model has no input `y`; inputs: `x` [1]"),
    ({"y": LOW}, [], "inputs: none"),
    ({"x": (1, 3)}, [IMAGE], "write 4 sizes, like (?, 3, ?, ?)"),  # too few
    ({"x": (1, 3, 4, 4, 4)}, [IMAGE], "write 4 sizes"),  # too many
    ({"x": ((1,), (1, 1), (1,))}, [OnnxInput("x", None)], "write 1 size, like"),  # ranks that differ
    ({"x": (USUAL, LOW, HIGH)}, [IMAGE], "axis 2: min 64 > opt 32; write min <= opt <= max"),  # opt below min
    ({"x": (LOW, HIGH, USUAL)}, [IMAGE], "axis 0: opt 4 > max 1; write min"),  # opt above max
    ({"x": (HIGH, USUAL, LOW)}, [IMAGE], "axis 2: min 128 > opt 64 and opt 64 > max 32"),  # reversed
    ({"x": (1, 4, 9, 9)}, [IMAGE], "axis 1: its size in the model is 3"),  # a fixed axis
    ({"x": (2,)}, [OnnxInput("x", (1,))], "axis 0: its size in the model is 1"),  # a static input
    ({"x": (-1, 3)}, [OnnxInput("x", (-1, 3))], "axis 0: -1 is negative"),  # as an ONNX writes it
    ({"s": (1, 2)}, [OnnxInput("s", (3,), 7)], "write 3 values in each"),  # a shape tensor
    ({"s": ((2,), (1,), (3,))}, [OnnxInput("s", (1,), 7)], "element 0: min 2 > opt 1; write"),
    ([{"x": LOW}, {"y": LOW}], [IMAGE], "is dynamic"),  # one profile of two leaves it out
]


@pytest.mark.parametrize(("shapes", "inputs", "reason"), MISFITS, ids=[m[2][:50] for m in MISFITS])
def test_shapes_that_do_not_fit_are_told_with_what_to_write(shapes, inputs, reason):
    found = faults(shapes, *inputs)
    assert any(reason in fault for fault in found), found


def test_each_dynamic_input_without_a_shape_is_named():
    inputs = [OnnxInput("a", (-1,)), OnnxInput("b", (2,)), OnnxInput("c", None)]
    assert [re.search("`(.)`", fault)[1] for fault in faults(None, *inputs)] == ["a", "c"]


def test_a_problem_of_every_profile_is_told_once():
    assert len(faults([{"y": (1,)}, {"y": (2,)}], OnnxInput("x", (1,)))) == 1


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50), st.integers(0, 50)), max_size=4))
def test_any_range_within_the_inputs_own_dimensions_fits(axes):
    low = tuple(least for least, _, _ in axes)
    usual = tuple(least + more for least, more, _ in axes)
    high = tuple(least + more + most for least, more, most in axes)
    assert faults({"x": (low, usual, high)}, OnnxInput("x", (-1,) * len(axes))) == []
