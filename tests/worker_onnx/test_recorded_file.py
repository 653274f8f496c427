"""The recorded file: numpy reads it, its bytes depend on its contents alone, and a damaged one is refused."""

import io
import zipfile

import numpy as np
import pytest

from scons_tensorrt.worker.common import array_file, recorded_file

OPTIONS = {"atol": 0.01, "rtol": 0.5, "metric": "elemwise", "dla_core": 1}
Y = ("float32", (1, 2), np.array([[1, 2]], "<f4").tobytes())


def samples():
    """One tensor of each type, one of them empty, one a scalar, with names that ONNX has."""
    inputs = {
        f"/in/{dtype}:0": (dtype, (2, 3), bytes(array_file.size(dtype, (2, 3)))) for dtype in array_file.TYPES
    }
    return [
        ({**inputs, "é": ("int64", (), bytes(8)), "e": ("float32", (0, 4), b"")}, {"y": Y}),
        ({}, {"y": Y}),
    ]


@pytest.fixture
def path(tmp_path):
    assert recorded_file.write(str(tmp_path / "a.npz"), samples(), OPTIONS) == 2
    return tmp_path / "a.npz"


def test_what_is_written_is_read(path):
    assert recorded_file.read(str(path)) == (samples(), OPTIONS)


def test_numpy_reads_it(path):
    with np.load(path) as arrays:
        assert arrays["0000/inputs//in/float16:0"].dtype == np.float16
        assert arrays["0000/inputs//in/bfloat16:0"].dtype == np.uint16
        assert arrays["0000/inputs/e"].shape == (0, 4)
        assert arrays["0001/outputs/y"].tolist() == [[1, 2]]
        assert arrays["options/rtol"] == 0.5


def test_the_same_contents_give_the_same_bytes(path, tmp_path):
    turned = [tuple(dict(reversed(each.items())) for each in pair) for pair in samples()]
    recorded_file.write(str(tmp_path / "b.npz"), turned, dict(reversed(OPTIONS.items())))
    assert (tmp_path / "b.npz").read_bytes() == path.read_bytes()


def changed(path, change):
    """The file with its members as `change` leaves them: {name: bytes}."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)


def of_objects(members):
    out = io.BytesIO()
    np.save(out, np.array([{}]), allow_pickle=True)
    members["0000/inputs/o.npy"] = out.getvalue()


def of_another_metric(members):
    members["options/metric.npy"] = members["options/metric.npy"].replace(b"elemwise", b"elemwide")


DAMAGE = {
    "its metric 'elemwide' is unknown": of_another_metric,
    "it holds no samples": lambda m: [m.pop(name) for name in [*m] if name[0] == "0"],
    "a sample is missing": lambda m: [m.pop(name) for name in [*m] if name[:4] == "0000"],
    "it states no bound": lambda m: m.pop("options/atol.npy"),
    "its member 'readme' is not of a recorded file": lambda m: m.update(readme=b""),
    "its member '0001/outputs/y.npy' is not an array": lambda m: m.update(
        {"0001/outputs/y.npy": b"\x93NUMPY"}
    ),
    "its member '0000/inputs/o.npy' is not an array": of_objects,
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_file_that_is_not_of_the_format_is_refused(path, reason):
    changed(path, DAMAGE[reason])
    with pytest.raises(ValueError, match=reason):
        recorded_file.read(str(path))


def test_no_damage_of_its_bytes_ends_in_another_error(path):
    data = path.read_bytes()
    refused = 0
    for at in range(0, len(data), 37):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            recorded_file.read(str(path))
        except ValueError:
            refused += 1
        path.write_bytes(data[:at])
        with pytest.raises(ValueError):
            recorded_file.read(str(path))
    assert refused > 10


def test_a_compressed_file_is_refused(path):
    np.savez_compressed(path, x=np.zeros(3))
    with pytest.raises(ValueError, match=r"its member 'x.npy' is compressed"):
        recorded_file.read(str(path))
