"""What is read off an ONNX without the onnx package, checked against models that package makes."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from scons_tensorrt.errors import RecipeError
from scons_tensorrt.recipe.onnx.read_onnx import read_onnx
from scons_tensorrt.recipe.onnx.summary import OnnxInput, OnnxSummary

FLOAT = TensorProto.FLOAT


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def stored(name, location="weights.bin", dims=(2,)):
    """A tensor whose bytes lie in another file."""
    tensor = TensorProto(name=name, data_type=FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=text)
    return tensor


def plain(name, values=(1.0, 2.0)):
    return helper.make_tensor(name, FLOAT, [len(values)], values)


def graph(nodes=(), inputs=None, initializer=(), **more):
    inputs = [value("x", [1, 2])] if inputs is None else inputs
    nodes = list(nodes) or [helper.make_node("Identity", ["x"], ["y"])]
    return helper.make_graph(nodes, "g", inputs, [value("y", None)], list(initializer), **more)


def model(made=None, **more):
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(made or graph(), opset_imports=opsets, ir_version=9, **more)


def constant(tensor, name="c"):
    return helper.make_node("Constant", [], [name], value=tensor)


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "m.onnx"
        path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
        return read_onnx(path)

    return read


# Types.


def test_weights_are_counted_by_type_wherever_they_are(read):
    half = numpy_helper.from_array(np.zeros((2, 3), np.float16), "h")
    inside = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(5, np.float16)))
    scalar = numpy_helper.from_array(np.float32(1), "s")
    nodes = [inside, helper.make_node("Add", ["h", "s"], ["y"])]
    assert read(model(graph(nodes, initializer=[half, scalar]))).elements == {10: 11, 1: 1}


def test_packed_dimensions_are_read_as_others_are(read):
    tensor = b"\x0a\x02\x04\x05" + b"\x10\x01"  # dims [4, 5], packed; FLOAT
    data = model().SerializeToString()
    extra = b"\x3a" + varint(len(tensor) + 2) + b"\x2a" + varint(len(tensor)) + tensor
    before = read(data).elements.get(1, 0)
    assert read(data + extra).elements[1] == before + 20


@pytest.mark.parametrize(
    ("op", "found"), [("QuantizeLinear", True), ("DequantizeLinear", True), ("Relu", False)]
)
def test_a_quantized_model_is_known_by_its_nodes(read, op, found):
    assert read(model(graph([helper.make_node(op, ["x"], ["y"])]))).quantized is found


# Inputs.

SHAPES = [
    ([1, 3, 224, 224], (1, 3, 224, 224)),  # static
    (["batch", 3, "h", "w"], (-1, 3, -1, -1)),  # dim_param
    ([None, 2], (-1, 2)),  # a dimension of which nothing is said
    ([-1, 2], (-1, 2)),  # as some exporters write a free one
    ([0, 2], (0, 2)),  # empty, and static
    ([], ()),  # a scalar
    (None, None),  # unknown rank
    ([1 << 40], (1 << 40,)),  # more than 32 bits
]


@pytest.mark.parametrize(("written", "found"), SHAPES, ids=str)
def test_the_shape_of_an_input(read, written, found):
    assert read(model(graph(inputs=[value("x", written)]))).inputs == (OnnxInput("x", found, FLOAT),)


@pytest.mark.parametrize(
    ("shape", "dynamic"),
    [((1, 2), False), ((), False), ((0,), False), ((-1, 2), True), (None, True)],
)
def test_an_input_is_dynamic_when_a_dimension_or_its_rank_is_open(shape, dynamic):
    assert OnnxInput("x", shape).dynamic is dynamic


def test_inputs_come_in_the_models_order(read):
    inputs = [value(name, [1]) for name in ("z", "a", "m")]
    made = read(model(graph([helper.make_node("Sum", ["z", "a", "m"], ["y"])], inputs)))
    assert [i.name for i in made.inputs] == ["z", "a", "m"]


def test_a_model_without_inputs_has_none(read):
    assert read(model(graph([constant(plain("t"), "y")], inputs=[]))).inputs == ()


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING])
def test_an_input_of_any_element_type_is_one(read, kind):
    made = read(model(graph(inputs=[value("x", [4], kind)])))
    assert made.inputs == (OnnxInput("x", (4,), kind),)


def test_an_input_that_is_a_sequence_has_no_shape(read):
    sequence = helper.make_tensor_sequence_value_info("x", FLOAT, None)
    (found,) = read(model(graph(inputs=[sequence]))).inputs
    assert found == OnnxInput("x", None, tensor=False)
    assert not found.dynamic  # there is no shape to ask for


def test_a_name_that_is_not_ascii_is_read(read):
    made = read(model(graph([helper.make_node("Identity", ["größe"], ["y"])], [value("größe", [1])])))
    assert made.inputs[0].name == "größe"


def test_an_initializer_that_is_listed_among_the_inputs_is_no_input(read):
    inputs = [value("x", [2]), value("w", [2])]
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    made = read(model(graph(nodes, inputs, [plain("w")])))
    assert [i.name for i in made.inputs] == ["x"]


def test_a_sparse_initializer_that_is_listed_among_the_inputs_is_no_input(read):
    inputs = [value("x", [4]), value("w", [4])]
    sparse = helper.make_sparse_tensor(
        plain("w"), helper.make_tensor("", TensorProto.INT64, [2], [0, 3]), [4]
    )
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    made = read(model(graph(nodes, inputs, sparse_initializer=[sparse])))
    assert [i.name for i in made.inputs] == ["x"]


def test_an_initializer_of_a_subgraph_hides_no_input_of_the_model(read):
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["out"])], "inner", [], [value("out", None)], [plain("x")]
    )
    nodes = [helper.make_node("If", ["cond"], ["y"], then_branch=inner, else_branch=inner)]
    inputs = [value("x", [2]), value("cond", [], TensorProto.BOOL)]
    assert [i.name for i in read(model(graph(nodes, inputs))).inputs] == ["x", "cond"]


def test_the_inputs_of_a_subgraph_are_not_the_models(read):
    body = helper.make_graph(
        [helper.make_node("Identity", ["i"], ["o"])], "body", [value("i", [1])], [value("o", None)]
    )
    nodes = [helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)]
    assert [i.name for i in read(model(graph(nodes))).inputs] == ["x"]


# External data.


def test_a_model_with_its_weights_inside_has_no_external_data(read):
    assert tuple(read(model(graph(initializer=[plain("w")]))).external) == ()


def function(node, **more):
    return helper.make_function("d", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 17)], **more)


def branch(node):
    return helper.make_graph([node], "branch", [], [value("c", None)])


def sparse_node(**parts):
    values = parts.get("values", plain("v"))
    indices = parts.get("indices", helper.make_tensor("i", TensorProto.INT64, [2], [0, 3]))
    return helper.make_sparse_tensor(values, indices, [4])


def if_node(inner):
    return helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=branch(constant(plain("t"))))


def sparse_attribute():
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor.CopyFrom(
        sparse_node(values=stored("w"))
    )
    return node


def sparse_attributes():
    node = helper.make_node("Custom", [], ["c"], domain="d")
    node.attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSORS).sparse_tensors.append(
        sparse_node(values=stored("w"))
    )
    return node


def trained():
    made = model()
    made.training_info.add().initialization.CopyFrom(graph(initializer=[stored("w")]))
    return made


def trained_by():
    made = model()
    made.training_info.add().algorithm.CopyFrom(graph(initializer=[stored("w")]))
    return made


def function_default():
    made = function(helper.make_node("Identity", ["a"], ["b"]))
    made.attribute_proto.append(helper.make_attribute("t", stored("w")))
    return model(functions=[made])


PLACES = {
    "an initializer": lambda: model(graph(initializer=[stored("w")])),
    "a constant": lambda: model(graph([constant(stored("w"))])),
    "a list of tensors": lambda: model(
        graph([helper.make_node("Custom", [], ["y"], domain="d", ts=[plain("p"), stored("w")])])
    ),
    "a subgraph's initializer": lambda: model(
        graph([if_node(helper.make_graph([], "b", [], [value("w", None)], [stored("w")]))])
    ),
    "a subgraph's constant": lambda: model(graph([if_node(branch(constant(stored("w"))))])),
    "a subgraph of a subgraph": lambda: model(
        graph([if_node(branch(if_node(branch(constant(stored("w"))))))])
    ),
    "a list of subgraphs": lambda: model(
        graph([helper.make_node("Custom", [], ["y"], domain="d", gs=[branch(constant(stored("w")))])])
    ),
    "a function": lambda: model(functions=[function(constant(stored("w")))]),
    "a subgraph of a function": lambda: model(functions=[function(if_node(branch(constant(stored("w")))))]),
    "a default of a function's attribute": function_default,
    "values of a sparse initializer": lambda: model(
        graph(sparse_initializer=[sparse_node(values=stored("w"))])
    ),
    "indices of a sparse initializer": lambda: model(
        graph(sparse_initializer=[sparse_node(indices=stored("i"))])
    ),
    "a sparse constant": lambda: model(graph([sparse_attribute()])),
    "a list of sparse tensors": lambda: model(graph([sparse_attributes()])),
    "how training begins": trained,
    "how training goes on": trained_by,
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_in(read, place):
    assert tuple(read(PLACES[place]()).external) == ("weights.bin",)


def test_each_external_file_is_told_once_and_sorted(read):
    tensors = [stored("a", "z.bin"), stored("b", "a.bin"), stored("c", "z.bin")]
    assert tuple(read(model(graph(initializer=tensors))).external) == ("a.bin", "z.bin")


@pytest.mark.parametrize("location", ["sub/weights.bin", "größe w.bin", "a.b.c", "..weights", "a..b/c"])
def test_a_location_below_the_models_folder_is_taken(read, location):
    assert tuple(read(model(graph(initializer=[stored("w", location)]))).external) == (location,)


OUTSIDE = [
    "/etc/passwd",  # absolute
    "//server/share/w.bin",  # absolute, twice
    "../weights.bin",  # above
    "sub/../../weights.bin",  # above, by a detour
    "sub/../weights.bin",  # `..` means another folder where `sub` is a link
    "..",  # the folder above
]


@pytest.mark.parametrize("location", OUTSIDE)
def test_a_location_outside_the_models_folder_is_refused_by_name(read, location):
    with pytest.raises(RecipeError) as caught:
        read(model(graph(initializer=[stored("w", location)])))
    assert repr(location) in str(caught.value)
    assert "beside it" in str(caught.value)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("", "is not a file name"),
        (".", "is not a file name"),
        ("w\0.bin", "has a NUL character"),
    ],
)
def test_a_location_that_names_no_file_is_refused_by_name(read, location, why):
    with pytest.raises(RecipeError, match=why) as caught:
        read(model(graph(initializer=[stored("w", location)])))
    assert repr(location) in str(caught.value)


def test_a_location_outside_is_refused_in_a_subgraph_too(read):
    with pytest.raises(RecipeError, match=r"\.\./w\.bin"):
        read(model(graph([if_node(branch(constant(stored("w", "../w.bin"))))])))


def test_an_external_file_without_a_location_is_no_file(read):
    tensor = stored("w")
    del tensor.external_data[0]
    assert tuple(read(model(graph(initializer=[tensor]))).external) == ()


def test_a_location_left_over_on_a_tensor_that_lies_inside_is_no_file(read):
    tensor = plain("w")
    tensor.external_data.add(key="location", value="gone.bin")
    tensor.data_location = TensorProto.DEFAULT
    assert tuple(read(model(graph(initializer=[tensor]))).external) == ()


def test_a_metadata_entry_called_location_is_no_file(read):
    made = model()
    made.metadata_props.add(key="location", value="Zürich")
    made.graph.metadata_props.add(key="location", value="Bern")
    assert tuple(read(made).external) == ()


def test_the_bytes_an_external_file_must_have_are_the_end_of_its_last_tensor(tmp_path):
    weights = [helper.make_tensor(name, FLOAT, [500], b"\0" * 2000, raw=True) for name in "ab"]
    made = model(graph(initializer=weights))
    onnx.save_model(
        made, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    ends = [
        int(entry["offset"]) + int(entry["length"])
        for tensor in onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer
        for entry in [{e.key: e.value for e in tensor.external_data}]
    ]
    assert read_onnx(tmp_path / "m.onnx").external == {"m.data": max(ends)}


def test_what_the_onnx_package_saves_apart_is_found(tmp_path):
    weights = helper.make_tensor("w", FLOAT, [500], b"\0" * 2000, raw=True)
    made = model(graph(initializer=[weights]))
    onnx.save_model(
        made, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    assert tuple(read_onnx(tmp_path / "m.onnx").external) == ("m.data",)


def test_gigabytes_of_weights_are_jumped_over(tmp_path):
    before = model().SerializeToString()
    size = 3 << 30
    body = b"\x4a" + varint(size)  # tensor field 9, raw_data: that many bytes
    tensor = b"\x2a" + varint(len(body) + size) + body  # graph field 5
    path = tmp_path / "m.onnx"
    with open(path, "wb") as out:
        out.write(before + b"\x3a" + varint(len(tensor) + size) + tensor)
        out.truncate(out.tell() + size)  # a hole: takes no room on disk
    assert read_onnx(path).inputs == (OnnxInput("x", (1, 2), FLOAT),)


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


# A summary is remembered as JSON.

summaries = st.builds(
    OnnxSummary,
    st.lists(
        st.builds(
            OnnxInput,
            st.text(max_size=8),
            st.none() | st.lists(st.integers(-1, 1 << 40), max_size=5).map(tuple),
        ),
        max_size=4,
    ).map(tuple),
    st.dictionaries(
        st.from_regex(r"[\w/]{0,4}\w", fullmatch=True).map(lambda n: n.lstrip("/")),
        st.integers(0, 1 << 60),
        max_size=4,
    ),
)


@given(summaries)
def test_from_json_gives_back_the_summary_that_to_json_wrote(summary):
    assert OnnxSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary


# What is not a model.

NOT_A_MODEL = [
    (b"\0" * 4096, "not a readable"),  # zeros, as a power cut leaves them
    (b"<!DOCTYPE html><html>404</html>", "not an ONNX file but an HTML or XML page; download"),
    (b"\xef\xbb\xbf \n<html lang='fr'>acc\xe8s</html>", "not an ONNX file but an HTML or XML page"),
    (b"name: m\nlayers: 3\n" * 99, "not an ONNX file but text, which begins with 'name: m';"),
    ("é".encode() * 999, "not an ONNX file but text"),  # cut in the middle of a character
    (b" \n" * 9, "not an ONNX file but text"),  # blank
    (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "not an ONNX file but a Git LFS pointer; run `git lfs pull`",
    ),
    (b"PK\x03\x04" + b"\0" * 26, "not a readable"),  # a zip
    (b"\x08\x09", "no graph"),  # an ir_version and nothing else
    (b"\x3a\x00", "no ir_version"),  # a graph and nothing else
    (b"\x08\x00\x3a\x00", "no ir_version"),  # ir_version 0
    (b"\x80", "does not end"),  # a number cut off
    (b"\xff" * 20, "does not end"),  # a number without end
    (b"\x0a\xff\xff\xff\xff\x0f", "runs past the end"),  # a length past the file
    (b"\x0b\x0c", "wire type 3"),  # groups, which no ONNX has
    (b"\x09\x01\x02", "runs past the end"),  # a fixed number cut off
    (b"\x08\x09\x3a\x06\x2a\x04\x42\x02\xff\xfe", "not a readable"),  # a name that is not UTF-8
]


@pytest.mark.parametrize(("data", "reason"), NOT_A_MODEL, ids=[repr(d)[:30] for d, _ in NOT_A_MODEL])
def test_a_file_that_is_no_model_is_refused_with_its_reason(read, data, reason):
    with pytest.raises(RecipeError, match=reason):
        read(data)


def test_an_empty_file_is_refused(read):
    with pytest.raises(RecipeError, match="empty"):
        read(b"")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="No such file"):
        read_onnx(tmp_path / "missing.onnx")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="Is a directory"):
        read_onnx(tmp_path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(model().SerializeToString())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    with pytest.raises(RecipeError, match="Permission denied"):
        read_onnx(path)


def test_a_model_nested_without_end_is_refused(read):
    inner = b""
    for _ in range(300):  # graph{node{attribute{g: ...}}}
        attribute = b"\x32" + varint(len(inner)) + inner
        node = b"\x2a" + varint(len(attribute)) + attribute
        inner = b"\x0a" + varint(len(node)) + node
    with pytest.raises(RecipeError, match="nested deeper"):
        read(b"\x08\x09\x3a" + varint(len(inner)) + inner)


SMALL = model(
    graph(
        [if_node(branch(constant(stored("w"))))],
        [value("x", ["n", 2]), value("p", [2])],
        [plain("p"), stored("e", "e.bin")],
    ),
    functions=[function(constant(stored("f", "f.bin")))],
)


def test_a_model_cut_at_any_byte_is_refused_unless_its_whole_graph_is_there(read):
    data = SMALL.SerializeToString()
    refused = 0
    for cut in range(len(data)):
        try:
            read(data[:cut])
        except RecipeError:
            refused += 1
        else:
            assert onnx.ModelProto.FromString(data[:cut]).graph == SMALL.graph
    assert refused > len(data) // 2


def test_the_uncut_model_is_read(read):
    found = read(SMALL)
    external = {"e.bin": 8, "f.bin": 8, "weights.bin": 8}
    assert (found.inputs, found.external) == ((OnnxInput("x", (-1, 2), FLOAT),), external)


def summary_of(data):
    """The summary of these bytes, or None where they are refused; anything else is a bug."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        path.write_bytes(data)
        try:
            return read_onnx(path)
        except RecipeError:
            return None


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b"\x08\x09\x3a" + varint(len(b)) + b))
def test_any_bytes_are_read_or_refused(data):
    summary_of(data)


REAL = [SMALL, *(make() for make in PLACES.values())]


@st.composite
def mutated(draw):
    """A model with a few bytes changed, taken out, put in, or copied from elsewhere in it."""
    data = bytearray(draw(st.sampled_from(REAL)).SerializeToString())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        end = min(len(data), at + draw(st.integers(0, 6)))
        start = draw(st.integers(0, len(data)))
        new = draw(st.binary(max_size=6) | st.just(bytes(data[start : start + 8])))
        data[at:end] = new
        data = data or bytearray(b"\0")
    return bytes(data)


@settings(max_examples=4 * settings.default.max_examples)
@given(mutated())
def test_a_damaged_model_is_read_or_refused(data):
    found = summary_of(data)
    assert found is None or all(isinstance(i.name, str) for i in found.inputs)


dims = st.integers(0, 5) | st.sampled_from(["n", "h", None])
tensors = st.tuples(st.sampled_from("abc"), st.booleans())


@st.composite
def made_models(draw):
    """A model with its true summary."""
    names = draw(st.lists(st.sampled_from(["x", "p", "q", "größe"]), min_size=1, unique=True))
    shapes = [draw(st.none() | st.lists(dims, max_size=4)) for _ in names]
    inputs = [value(name, shape) for name, shape in zip(names, shapes)]
    hidden = draw(st.sets(st.sampled_from(names)))
    outside = draw(st.lists(st.sampled_from(["a.bin", "b.bin", "s/c.bin"]), max_size=3))
    weights = [plain(name) for name in hidden] + [stored(f"w{n}", o) for n, o in enumerate(outside)]
    made = model(graph([helper.make_node("Identity", [names[0]], ["y"])], inputs, weights))
    true = tuple(
        OnnxInput(n, None if s is None else tuple(d if isinstance(d, int) else -1 for d in s), FLOAT)
        for n, s in zip(names, shapes)
        if n not in hidden
    )
    elements: dict = {}
    for tensor in weights:
        elements[tensor.data_type] = elements.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    places: dict = {}
    for n, s in zip(names, shapes):
        for axis, d in enumerate(s or ()):
            if isinstance(d, str) and n not in hidden:
                places.setdefault(d, []).append((n, axis))
    shared = {name: tuple(found) for name, found in places.items() if len(found) > 1}
    return made, OnnxSummary(true, dict.fromkeys(sorted(set(outside)), 8), elements, shared=shared)


@given(made_models())
def test_a_made_model_is_read_as_it_was_made(made):
    data, true = made[0].SerializeToString(), made[1]
    assert summary_of(data) == true


@given(made_models())
def test_the_order_of_a_models_fields_does_not_matter(made):
    proto, true = made
    head = onnx.ModelProto(ir_version=9).SerializeToString()
    tail = onnx.ModelProto()
    tail.graph.CopyFrom(proto.graph)
    nodes = onnx.ModelProto()
    nodes.graph.initializer.extend(tail.graph.initializer)
    del tail.graph.initializer[:]
    split = nodes.SerializeToString() + tail.SerializeToString() + head  # protobuf joins the two graphs
    assert onnx.ModelProto.FromString(split).ir_version == 9
    assert summary_of(split) == true
