"""The export scripts of models/backbones: what is ours in them computes what the original computes, and
the same weights give the same bytes. Small variants, random weights."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("kornia")

FOLDER = str(Path(__file__).parents[2] / "models" / "backbones")
SMALL = {
    "dinov2_vpr": {"size": 28, "layers": 1},
    "lightglue": {"layers": 1},
    "aliked": {"part": "whole", "size": (64, 96), "keypoints": 20},
}


def script(name):
    """An export script, imported as when it is run, with its folder first on the path."""
    sys.path.insert(0, FOLDER)
    try:
        return __import__(name)
    finally:
        sys.path.remove(FOLDER)


aliked, dinov2_vpr, lightglue, exporting = map(script, ("aliked", "dinov2_vpr", "lightglue", "exporting"))


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """{name: (path of a small ONNX, facts)}, made once."""
    folder = tmp_path_factory.mktemp("onnx")
    paths = {name: str(folder / f"{name}.onnx") for name in SMALL}
    return {name: (path, script(name).export(path, **SMALL[name])) for name, path in paths.items()}


def drawn(*shape, seed=0, low=-1.0, high=1.0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, shape)).float()


def differ(one, other):
    return (one - other).abs().max().item()


# ALIKED: deformable convolution by sampling.


def deformable(x, offsets, weight, padding):
    """A deformable convolution (Dai et al. 2017) by its definition, one number after the other."""
    batch, channels, height, width = x.shape
    k_high, k_wide = weight.shape[2:]
    out = torch.zeros(batch, weight.shape[0], height, width, dtype=torch.float64)

    def pixel(b, row, column):
        inside = 0 <= row < height and 0 <= column < width
        return x[b, :, row, column] if inside else torch.zeros(channels, dtype=torch.float64)

    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for k in range(k_high * k_wide):
                    row = i - padding + k // k_wide + offsets[b, 2 * k, i, j].item()
                    column = j - padding + k % k_wide + offsets[b, 2 * k + 1, i, j].item()
                    top, left = math.floor(row), math.floor(column)
                    down, right = row - top, column - left
                    value = (
                        pixel(b, top, left) * (1 - down) * (1 - right)
                        + pixel(b, top, left + 1) * (1 - down) * right
                        + pixel(b, top + 1, left) * down * (1 - right)
                        + pixel(b, top + 1, left + 1) * down * right
                    )
                    out[b, :, i, j] += weight[:, :, k // k_wide, k % k_wide] @ value
    return out


@pytest.fixture
def layer():
    from kornia.feature.aliked.aliked import DeformableConv2d

    original = DeformableConv2d(3, 4).double()
    original.regular_conv.weight.copy_(drawn(4, 3, 3, 3, seed=1))
    return aliked.SampledConv(original)


@pytest.mark.parametrize("reach", [0.0, 0.7, 3.0, 20.0])
def test_sampling_is_a_deformable_convolution(layer, reach):
    """reach: of offsets, in pixels: none, within a pixel, over the border, far outside."""
    x, offsets = drawn(2, 3, 5, 7, seed=2).double(), drawn(2, 18, 5, 7, seed=3).double() * reach
    expected = deformable(x, offsets, layer.regular_conv.weight, 1)
    assert differ(layer.convolve(x, offsets), expected) < 1e-12


def test_whole_offsets_hit_pixels(layer):
    x, offsets = drawn(1, 3, 5, 7, seed=2).double(), drawn(1, 18, 5, 7, seed=3).double().mul(4).round()
    expected = deformable(x, offsets, layer.regular_conv.weight, 1)
    assert differ(layer.convolve(x, offsets), expected) < 1e-12


def test_the_comparison_tells_other_convolutions_apart(layer):
    x, offsets = drawn(1, 3, 5, 7, seed=2).double(), drawn(1, 18, 5, 7, seed=3).double()
    weight = layer.regular_conv.weight
    right = layer.convolve(x, offsets)
    pairs = offsets.unflatten(1, (9, 2))
    rows_for_columns = pairs.flip(2).flatten(1, 2)
    other_points = pairs.flip(1).flatten(1, 2)
    assert differ(right, deformable(x, rows_for_columns, weight, 1)) > 0.1
    assert differ(right, deformable(x, other_points, weight, 1)) > 0.1
    assert differ(right, deformable(x, offsets, weight.transpose(2, 3), 1)) > 0.1
    assert differ(right, deformable(x, offsets, weight, 0)) > 0.1


# ALIKED as a whole.


def picture(*size):
    return drawn(2, 3, *size, seed=4, low=0.0)


def test_dense_maps_are_those_of_kornia():
    ours = aliked.Dense(aliked.original()[0])
    features, scores = aliked.original()[0].extract_dense_map(picture(96, 64))
    our_scores, our_features = ours(picture(96, 64))
    assert differ(our_scores, scores) < 1e-5
    assert differ(our_features, features) < 1e-5
    assert scores.std() > 0.01  # it is a map with something in it


def test_keypoints_are_those_of_kornia():
    count = 60
    original, _ = aliked.original(keypoints=count)
    ours = aliked.Whole(aliked.original()[0], count)
    found = original(picture(96, 128))
    places, scores, descriptors = ours(picture(96, 128))
    for i, one in enumerate(found):
        assert one.n == count
        assert differ(places[i], one.keypoints) < 1e-3
        assert differ(scores[i], one.keypoint_scores) < 1e-4
        assert differ(descriptors[i], one.descriptors) < 1e-3


def test_where_maxima_run_out_scores_are_zero():
    original, _ = aliked.original(keypoints=500)
    ours = aliked.Whole(aliked.original()[0], 500)
    found = original(picture(32, 64))
    _, scores, _ = ours(picture(32, 64))
    for i, one in enumerate(found):
        assert 0 < one.n < 500
        assert (scores[i, : one.n] > 0).all()
        assert (scores[i, one.n :] == 0).all()


def test_size_must_suit_the_network(tmp_path):
    with pytest.raises(ValueError, match="multiples of 32"):
        aliked.export(str(tmp_path / "x.onnx"), size=(100, 64))
    with pytest.raises(ValueError, match="multiple of 14"):
        dinov2_vpr.export(str(tmp_path / "x.onnx"), size=224 + 1)
    with pytest.raises(ValueError, match="dense, selection, whole"):
        aliked.export(str(tmp_path / "x.onnx"), part="half")


# LightGlue.


def pair(count0, count1):
    sets = [drawn(1, count0, 2, seed=5), drawn(1, count1, 2, seed=6)]
    for seed, count in ((7, count0), (8, count1)):
        sets.append(torch.nn.functional.normalize(drawn(1, count, lightglue.DIMENSIONS, seed=seed), dim=2))
    return sets


def of_kornia(network, keypoints0, keypoints1, descriptors0, descriptors1):
    """kornia takes pixels of an image; one of 2 x 2 pixels makes p of p + 1."""
    size = torch.tensor([[2.0, 2.0]])
    images = {
        "image0": {"keypoints": keypoints0 + 1, "descriptors": descriptors0, "image_size": size},
        "image1": {"keypoints": keypoints1 + 1, "descriptors": descriptors1, "image_size": size},
    }
    return network(images)["log_assignment"]


@pytest.mark.parametrize("counts", [(30, 41), (41, 30), (1, 5)])
def test_assignment_is_that_of_kornia(counts):
    data = pair(*counts)
    expected = of_kornia(lightglue.original(layers=2)[0], *data)
    ours = lightglue.Matcher(lightglue.original(layers=2)[0])(*data)
    assert ours.shape == (1, counts[0] + 1, counts[1] + 1)
    assert differ(ours, expected) < 1e-3
    other = lightglue.Matcher(lightglue.original(layers=2, seed=1)[0])(*data)
    assert differ(other, expected) > 1  # the comparison can fail


# DINOv2.


def test_positions_are_computed_once():
    network, _ = dinov2_vpr.build(size=42, layers=1)
    assert network.backbone.pos_embed.shape == (1, 1 + 3 * 3, 384)
    found = network(drawn(2, 3, 42, 42))
    assert found.shape == (2, 384)
    assert differ(found.norm(dim=1), torch.ones(2)) < 1e-5
    assert differ(found[0], found[1]) > 1e-3


def test_positions_of_a_checkpoint_are_interpolated(tmp_path):
    whole = dinov2_vpr.vision_transformer("s", 518, layers=1)
    exporting.give_weights(whole, None, 7)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    network, weights = dinov2_vpr.build(checkpoint=str(tmp_path / "weights.pth"), size=42, layers=1)
    image = drawn(2, 3, 42, 42)
    tokens = whole.forward_features(image)["x_norm_patchtokens"]
    pooled = tokens.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)
    assert differ(network(image), torch.nn.functional.normalize(pooled, dim=1)) < 1e-5
    assert weights.startswith("checkpoint ")
    assert len(weights) == len("checkpoint ") + 64


# Checkpoints.


def test_weights_of_a_file(tmp_path):
    original, drawn_from = lightglue.original(layers=2, seed=3)
    assert drawn_from == "random, seed 3"
    names = {n: v for n, v in original.state_dict().items() if n != "confidence_thresholds"}
    authors = {}  # names as in the authors' file
    for name, value in names.items():
        parts = name.split(".")
        if parts[0] == "transformers":
            parts = [parts[2], parts[1], *parts[3:]]
        authors[".".join(parts)] = value.clone()
    assert "cross_attn.1.to_qk.weight" in authors
    data = pair(10, 12)
    for state in (names, authors, {"state_dict": authors}):
        torch.save(state, tmp_path / "w.pth")
        loaded, _ = lightglue.original(layers=2, seed=0, checkpoint=str(tmp_path / "w.pth"))
        assert differ(of_kornia(loaded, *data), of_kornia(original, *data)) == 0


def test_weights_of_a_safetensors_file(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    original, _ = aliked.original(seed=3)
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    loaded, _ = aliked.original(checkpoint=str(tmp_path / "w.safetensors"))
    image = picture(64, 64)
    assert differ(loaded.extract_dense_map(image)[1], original.extract_dense_map(image)[1]) == 0


def test_a_file_for_another_network(tmp_path):
    path = str(tmp_path / "w.pth")
    right = aliked.original()[0].state_dict()

    def message(state):
        torch.save(state, path)
        with pytest.raises(ValueError) as error:
            aliked.original(checkpoint=path)
        assert "\n" not in str(error.value)
        return str(error.value)

    lacking = {name: value for name, value in right.items() if name != "conv1.weight"}
    assert message(lacking) == "w.pth lacks `conv1.weight`"
    assert message({**right, "classes": torch.zeros(1)}) == "w.pth has the unknown `classes`"
    assert "has other shapes of `conv1.weight`" in message({**right, "conv1.weight": torch.zeros(1)})
    assert "and 3 more" in message({**right, **{f"x{i}": torch.zeros(1) for i in range(7)}})
    assert "no state dict" in message([1, 2])


# The ONNX.


def inputs_of(name, many):
    """Inputs of a small variant: of other dynamic sizes than the examples it was traced with."""
    if name == "lightglue":
        names = ["keypoints0", "keypoints1", "descriptors0", "descriptors1"]
        return dict(zip(names, pair(*((17, 33) if many else (1, 2)))))
    size = (64, 96) if name == "aliked" else (28, 28)
    return {"image": drawn(3 if many else 1, 3, *size, seed=9, low=0.0)}


def network_of(name):
    if name == "lightglue":
        return lightglue.Matcher(lightglue.original(layers=1)[0])
    if name == "aliked":
        return aliked.Whole(aliked.original()[0], 20)
    return dinov2_vpr.build(**SMALL["dinov2_vpr"])[0]


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_the_onnx_computes_the_same(exported, name, many):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported[name][0], providers=["CPUExecutionProvider"])
    inputs = inputs_of(name, many)
    found = session.run(None, {key: value.numpy() for key, value in inputs.items()})
    expected = network_of(name)(**inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert one.shape == tuple(other.shape)
        assert np.abs(one - other.numpy()).max() < 2e-3


@pytest.mark.parametrize("name", SMALL)
def test_weights_are_constants(exported, name):
    """A weight that the graph computes gets no scale for each of its channels in int8."""
    graph = onnx.load(exported[name][0]).graph
    constants = {tensor.name for tensor in graph.initializer}
    made = [n for n in graph.node if n.input and set(n.input) <= constants]
    assert [n.op_type for n in made] == []
    assert not {n.op_type for n in graph.node} & {"DeformConv", "ScatterND", "NonZero", "If", "Loop"}


def test_facts(exported):
    for name, (path, facts) in exported.items():
        assert json.loads(json.dumps(facts)) == facts
        assert facts["weights"] == "random, seed 0"
        assert facts["torch"] == torch.__version__
        stored = sum(np.prod(t.dims) for t in onnx.load(path).graph.initializer if t.data_type == 1)
        assert stored == pytest.approx(facts["parameters"], rel=0.2), name


AGAIN = """
import json, sys
sys.path.insert(0, sys.argv[1])
for name, options in json.loads(sys.argv[2]).items():
    __import__(name).export(sys.argv[3] + "/" + name + ".onnx", **options)
"""


def test_another_process_writes_the_same_bytes(exported, tmp_path):
    command = [sys.executable, "-c", AGAIN, FOLDER, json.dumps(SMALL), str(tmp_path)]
    environment = {"PYTHONHASHSEED": "77", "PATH": "", "OMP_NUM_THREADS": "2"}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=300)
    for name, (path, _) in exported.items():
        written = Path(path).read_bytes()
        assert (tmp_path / f"{name}.onnx").read_bytes() == written, name
        for origin in (FOLDER, str(tmp_path.parent), "site-packages", ".py", "Traceback"):
            assert origin.encode() not in written, (name, origin)


def test_external_data(tmp_path):
    target, data = tmp_path / "big.onnx", tmp_path / "big.onnx.data"
    data.write_bytes(b"of an earlier run")
    dinov2_vpr.export(str(target), variant="b", size=28, layers=1)
    assert sorted(tmp_path.iterdir()) == [target, data]
    tensors = onnx.load(target, load_external_data=False).graph.initializer
    entries = [{e.key: e.value for e in t.external_data} for t in tensors if t.external_data]
    assert {entry["location"] for entry in entries} == {"big.onnx.data"}
    assert max(int(e["offset"]) + int(e["length"]) for e in entries) == data.stat().st_size
    assert target.stat().st_size < 200_000
    assert target.stat().st_mode == data.stat().st_mode
    onnx.checker.check_model(str(target), full_check=True)


# Samples.


def test_samples_suit_the_inputs():
    spec = importlib.util.spec_from_file_location("backbones_samples", FOLDER + "/samples.py")
    samples = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(samples)
    sizes = {
        "dinov2_vpr": {"size": 70},
        "aliked": {"height": 64, "width": 96},
        "lightglue": {"most": 40},
    }
    wanted = {name: set(inputs_of(name, True)) for name in SMALL}
    for name, options in sizes.items():
        first, again = ([*getattr(samples, name)(count=3, **options)] for _ in range(2))
        assert len(first) == 3
        for one, other in zip(first, again):
            assert set(one) == wanted[name]
            for key, value in one.items():
                assert value.dtype == np.float32
                assert np.array_equal(value, other[key])
    for views in samples.lightglue(count=2, most=40):
        assert np.abs(views["keypoints0"]).max() <= 1
        assert views["keypoints0"].shape[1] == views["descriptors0"].shape[1]
        assert np.allclose(np.linalg.norm(views["descriptors1"], axis=2), 1, atol=1e-5)
