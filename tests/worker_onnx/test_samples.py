"""Reading sets of samples: each kind, and what is said of every fault."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from onnx import TensorProto, helper

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx.open_samples import inputs_of, read

F32, I64 = np.dtype("f4"), np.dtype("i8")
IMAGE = [("x", F32, (-1, 3, 4, 4))]
FIXED = [("x", F32, (2, 3))]
TWO = [("ids", I64, (1, -1)), ("scale", F32, ())]


def spec(path, kind="npz", function=None, most=None, at_least=1):
    return {"kind": kind, "path": str(path), "function": function, "most": most, "at_least": at_least}


def all_of(path, inputs, **more):
    return list(read(spec(path, **more), inputs))


def refusal(path, inputs, **more):
    with pytest.raises(WorkerError) as caught:
        all_of(path, inputs, **more)
    text = str(caught.value)
    assert caught.value.error_class == "RecipeError"
    assert "\n" not in text
    return text


def npz(tmp_path, compressed=False, **arrays):
    path = tmp_path / "set.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def images(count, dtype="f4"):
    return np.arange(count * 48).reshape(count, 3, 4, 4).astype(dtype)


# The model's inputs.


def test_the_inputs_of_a_model_are_described_without_its_constants():
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [],
        "g",
        [value("x", 1, ["n", 3]), value("s", TensorProto.INT64, []), value("w", 1, [1])],
        [],
        [helper.make_tensor("w", 1, [1], [0.5])],
    )
    graph.input.append(helper.make_empty_tensor_value_info("any"))
    graph.input[-1].type.tensor_type.elem_type = TensorProto.FLOAT16
    wanted = [("x", F32, (-1, 3)), ("s", I64, ()), ("any", np.dtype("f2"), None)]
    assert inputs_of(helper.make_model(graph)) == wanted


def test_an_input_of_strings_can_have_no_samples():
    graph = helper.make_graph([], "g", [helper.make_tensor_value_info("s", 8, [1])], [])
    with pytest.raises(WorkerError, match="input `s` is not a tensor of numbers"):
        inputs_of(helper.make_model(graph))


# .npz


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("fortran", [False, True])
def test_an_npz_with_an_axis_over_the_samples(tmp_path, compressed, fortran):
    data = images(6).reshape(3, 2, 3, 4, 4)
    stored = np.asfortranarray(data) if fortran else data
    got = all_of(npz(tmp_path, compressed, x=stored), IMAGE)
    assert [sample["x"].shape for sample in got] == [(2, 3, 4, 4)] * 3
    np.testing.assert_array_equal(np.stack([sample["x"] for sample in got]), data)


def test_an_npz_of_the_inputs_rank_is_cut_into_the_models_batches(tmp_path):
    data = np.arange(12, dtype="f4").reshape(4, 3)
    got = all_of(npz(tmp_path, x=data), FIXED)
    np.testing.assert_array_equal([sample["x"] for sample in got], data.reshape(2, 2, 3))
    dynamic = all_of(npz(tmp_path, x=images(5)), IMAGE)
    assert [sample["x"].shape for sample in dynamic] == [(1, 3, 4, 4)] * 5


def test_an_npz_that_ends_within_a_batch_is_refused(tmp_path):
    said = refusal(npz(tmp_path, x=np.zeros((5, 3), "f4")), FIXED)
    assert "set.npz, array `x`: 5 rows are not a multiple of the model's batch size 2" in said


def test_several_inputs_and_one_without_axes(tmp_path):
    ids, scale = np.arange(8).reshape(2, 4), np.array([0.5, 2], "f4")
    got = all_of(npz(tmp_path, ids=ids, scale=scale), TWO)
    assert [(s["ids"].tolist(), float(s["scale"]), s["scale"].shape) for s in got] == [
        ([[0, 1, 2, 3]], 0.5, ()),
        ([[4, 5, 6, 7]], 2.0, ()),
    ]


def test_the_set_may_be_run_through_again(tmp_path):
    samples = read(spec(npz(tmp_path, x=images(4)), most=3), IMAGE)
    first, second = list(samples), list(samples)
    assert len(first) == 3
    np.testing.assert_array_equal(first[2]["x"], second[2]["x"])


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_is_never_whole_in_memory(tmp_path, compressed):
    path = npz(tmp_path, compressed, x=np.zeros((64, 1, 1 << 16), "f4"))  # 16 MiB
    samples = read(spec(path), [("x", F32, (1, 1 << 16))])
    tracemalloc.start()
    try:
        assert sum(1 for _ in samples) == 64
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("arrays", "inputs", "said"),
    [
        ({"y": images(1)}, IMAGE, "`y` is not an input of the model, input `x` is missing; the model's"),
        ({"x": images(1), "y": images(1)}, IMAGE, "`y` is not an input of the model; "),
        ({"ids": np.zeros((2, 4), int), "scale": np.zeros(3, "f4")}, TWO, "`ids` has 2, `scale` has 3"),
        ({"x": np.zeros((3, 4), "f4")}, IMAGE, "array `x` has shape [3, 4]; the input is [?, 3, 4, 4]"),
        ({"x": np.zeros((2, 1, 4, 4), "f4")}, IMAGE, "[1, 1, 4, 4]; the model takes [?, 3, 4, 4]"),
        ({"x": np.zeros((0, 3, 4, 4), "f4")}, IMAGE, "has no samples; add some"),
        ({"x": np.array([{}, {}])}, IMAGE, "array `x` holds Python objects"),
        ({"x": images(2, "c8")}, IMAGE, "is complex64; the model takes float32"),
        ({"ids": np.zeros((1, 4)), "scale": np.zeros(1)}, TWO, "float64; the model takes int64"),
        ({"x": np.full((1, 3, 4, 4), 2**25 + 1)}, IMAGE, "int64 with values that float32 cannot"),
        ({"x": np.full((1, 3, 4, 4), 1e300)}, IMAGE, "float64 with values that float32 cannot"),
        ({"x": np.zeros((2, 1, 3, 0, 4), "f4")}, [("x", F32, (1, 3, -1, 4))], "is empty in every input"),
    ],
)  # fmt: skip
def test_what_an_npz_can_have_wrong(tmp_path, arrays, inputs, said):
    text = refusal(npz(tmp_path, **arrays), inputs)
    assert said in text
    assert str(tmp_path / "set.npz") in text


def test_a_bad_value_is_found_and_placed(tmp_path):
    data = images(3)
    data[1, 2, 0, 3] = np.nan
    data[1, 2, 1, 3] = np.inf
    said = refusal(npz(tmp_path, x=data), IMAGE)
    assert "set.npz, sample 1, input `x` has NaN at [0, 2, 0, 3], 2 bad values in all" in said
    data[1, 2, 0, 3] = 0
    assert "has Inf at [0, 2, 1, 3]" in refusal(npz(tmp_path, x=data), IMAGE)


@pytest.mark.parametrize("dtype", ["f8", "f2", "u1", "i8", "?", ">f4"])
def test_casts_that_change_no_value_are_made(tmp_path, dtype):
    data = images(1, dtype)
    got = all_of(npz(tmp_path, x=data), IMAGE)[0]["x"]
    assert got.dtype == F32
    np.testing.assert_array_equal(got, data.astype("f4"))


def test_a_file_that_is_missing_or_no_npz_is_refused(tmp_path):
    assert "none.npz cannot be read: No such file" in refusal(tmp_path / "none.npz", IMAGE)
    assert "cannot be read: Is a directory" in refusal(tmp_path, IMAGE)
    text = tmp_path / "text.npz"
    text.write_text("no zip")
    assert "text.npz is not a readable .npz: File is not a zip file" in refusal(text, IMAGE)


def test_a_damaged_npz_is_refused(tmp_path):
    path = npz(tmp_path, x=images(8))
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    assert "is not a readable .npz: Bad CRC-32" in refusal(path, IMAGE)


def test_an_array_shorter_than_its_header_is_refused(tmp_path):
    stream = io.BytesIO()
    np.save(stream, images(2))
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue()[:-4])
    assert "array `x` is shorter than its header says" in refusal(tmp_path / "set.npz", IMAGE)


def test_too_few_samples(tmp_path):
    path = npz(tmp_path, x=images(3))
    said = refusal(path, IMAGE, at_least=8)
    assert said.endswith("set.npz has 3 samples, fewer than at_least=8; add samples or lower at_least")


# Folders of .npy


def save(folder, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def test_a_folder_is_read_by_name_and_the_batch_axis_may_lack(tmp_path):
    save(tmp_path, b=images(1)[0], a=images(2) + 1, c=images(1) + 2)
    save(tmp_path, **{"._a": images(1)})
    got = all_of(tmp_path, IMAGE, kind="npy")
    assert [(s["x"].shape, float(s["x"][0, 0, 0, 0])) for s in got] == [
        ((2, 3, 4, 4), 1.0),
        ((1, 3, 4, 4), 0.0),
        ((1, 3, 4, 4), 2.0),
    ]
    assert len(all_of(tmp_path, IMAGE, kind="npy", most=2)) == 2


def test_a_fixed_batch_of_several_is_not_made_up(tmp_path):
    save(tmp_path, a=np.zeros(3, "f4"))
    assert "a.npy, input `x` has shape [3]; the model takes [2, 3]" in refusal(tmp_path, FIXED, kind="npy")


def test_several_inputs_have_a_folder_each(tmp_path):
    save(tmp_path / "ids", a=np.array([1, 2]), b=np.array([[3]]))
    save(tmp_path / "scale", a=np.float32(4), b=np.float32(5))
    got = all_of(tmp_path, TWO, kind="npy")
    assert [(s["ids"].tolist(), float(s["scale"])) for s in got] == [([[1, 2]], 4.0), ([[3]], 5.0)]


def test_folders_that_do_not_pair_are_refused(tmp_path):
    save(tmp_path / "ids", a=np.array([1]), b=np.array([1]))
    assert "has no folder `scale`; give a folder for each" in refusal(tmp_path, TWO, kind="npy")
    save(tmp_path / "scale", a=np.float32(1))
    assert "has b.npy and " in refusal(tmp_path, TWO, kind="npy")


def test_an_input_that_can_be_no_folder_wants_an_npz(tmp_path):
    inputs = [("a/b", F32, (1,)), ("c", F32, (1,))]
    assert "input `a/b` cannot be the name of a folder; give the samples as one .npz" in refusal(
        tmp_path, inputs, kind="npy"
    )


def test_what_a_folder_can_have_wrong(tmp_path):
    assert "none cannot be read: No such file" in refusal(tmp_path / "none", IMAGE, kind="npy")
    assert "has no samples; add some" in refusal(tmp_path, IMAGE, kind="npy")
    (tmp_path / "a.npy").write_bytes(b"text")
    assert "a.npy is not a readable .npy" in refusal(tmp_path, IMAGE, kind="npy")
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    assert "a.npy holds Python objects" in refusal(tmp_path, IMAGE, kind="npy")
    save(tmp_path, a=np.full((3, 4, 4), np.inf, "f4"))
    assert "a.npy, input `x` has Inf at [0, 0, 0, 0]" in refusal(tmp_path, IMAGE, kind="npy")


# Functions


def write(tmp_path, text):
    path = tmp_path / "cal.py"
    path.write_text("import numpy as np\n" + text)
    return path


def read_by(path, inputs=IMAGE, **more):
    return all_of(path, inputs, kind="reader", function="samples", **more)


def refused_by(path, inputs=IMAGE, **more):
    return refusal(path, inputs, kind="reader", function="samples", **more)


def test_a_function_may_yield_or_return_and_import_from_its_folder(tmp_path, capsys):
    (tmp_path / "beside_cal.py").write_text("SHAPE = (3, 4, 4)\n")
    path = write(
        tmp_path,
        "def samples():\n    import beside_cal\n    for i in range(3):\n        print('one')\n"
        "        yield {'x': np.full(beside_cal.SHAPE, i, 'f4')}\n",
    )
    got = read_by(path, most=2)
    assert [(s["x"].shape, float(s["x"].max())) for s in got] == [
        ((1, 3, 4, 4), 0.0),
        ((1, 3, 4, 4), 1.0),
    ]
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "__pycache__").exists()
    returned = write(tmp_path, "def samples():\n    return [{'x': np.zeros((1, 3, 4, 4))}]\n")
    assert len(read_by(returned)) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def samples():\n    yield {'x': 1 / 0}\n", "cal.py, samples(), line 3: ZeroDivisionError: di"),
        ("def samples():\n    np.zeros(2).reshape(3)\n", "line 3: ValueError: cannot reshape"),
        ("raise OSError('a\\nb')\n", "line 2: OSError: a b"),
        ("def samples(:\n", "line 2: SyntaxError: "),
        ("def samples():\n    raise SystemExit(3)\n", "line 3: SystemExit: 3"),
        ("samples = 3\n", "has no function `samples`"),
        ("def samples(a):\n    pass\n", "TypeError: samples() missing 1 required"),
        ("def samples():\n    pass\n", "samples() returned a NoneType"),
        ("def samples():\n    return {'x': 1}\n", "samples() returned a dict"),
        ("def samples():\n    return [np.zeros(3)]\n", "sample 0 is a ndarray; give {input name"),
        ("def samples():\n    return []\n", "has no samples"),
        ("def samples():\n    yield {'y': 1}\n", "`y` is not an input of the model"),
        ("def samples():\n    yield {'x': 'abc'}\n", "is not an array of numbers"),
        ("def samples():\n    yield {'x': [[1], [1, 2]]}\n", "ValueError: setting an array element"),
        ("def samples():\n    yield {'x': np.zeros((9, 9))}\n", "sample 0, input `x` has shape [9, 9]"),
    ],
)  # fmt: skip
def test_what_a_function_can_have_wrong(tmp_path, text, said):
    assert said in refused_by(write(tmp_path, text))


def test_a_function_with_too_few_samples_shows_it_at_its_end(tmp_path):
    path = write(tmp_path, "def samples():\n    yield {'x': np.zeros((3, 4, 4), 'f4')}\n")
    assert "has 1 sample, fewer than at_least=2" in refused_by(path, at_least=2)
    assert "none.py cannot be read" in refused_by(tmp_path / "none.py")
