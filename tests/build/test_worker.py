"""The parts of the worker that need no TensorRT: the engine's file, and the judgement on types."""

import hashlib
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import REPO, sha256
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt.callbacks import EngineFile
from scons_tensorrt.worker.trt.network import _parser_message, check_precision

# The engine on its way to disk.


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("engine") / "e.engine"


@given(st.lists(st.binary(max_size=100), max_size=6))
def test_an_engine_written_in_pieces_has_their_sum_and_size(place, pieces):
    engine = EngineFile(str(place))
    counts = [engine.write(piece) for piece in pieces]
    whole = b"".join(pieces)
    assert counts == [len(piece) for piece in pieces]
    assert engine.close() == hashlib.sha256(whole).hexdigest()
    assert (place.read_bytes(), engine.size, engine.error) == (whole, len(whole), None)


def test_what_a_crashed_compile_left_is_overwritten(tmp_path):
    (tmp_path / "e").write_bytes(b"left over and longer")
    engine = EngineFile(str(tmp_path / "e"))
    engine.write(b"new")
    engine.close()
    assert (tmp_path / "e").read_bytes() == b"new"


def test_only_the_builder_s_own_libraries_are_loaded_before_it_ends(tmp_path):
    """A libcrypto of another size moves the memory of the builder, and so changes the bytes of an engine."""
    program = """
import sys
from scons_tensorrt.worker.trt import callbacks, main
engine = callbacks.EngineFile(sys.argv[1])
loaded = open("/proc/self/maps").read()
engine.write(b"engine")
print("libcrypto" in loaded, engine.close())
"""
    command = [sys.executable, "-c", program, str(tmp_path / "e")]
    environment = {"PYTHONPATH": str(REPO / "site_scons")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", sha256(tmp_path / "e")]


def test_a_piece_may_be_any_buffer(tmp_path):
    engine = EngineFile(str(tmp_path / "e"))
    assert engine.write(memoryview(b"abcdefgh").cast("I")) == 8
    engine.close()
    assert (tmp_path / "e").read_bytes() == b"abcdefgh"


def test_a_full_disk_is_kept_as_the_error_and_not_raised_into_native_code():
    engine = EngineFile("/dev/full")
    assert engine.write(b"x" * 5000) == 0
    engine.close()
    assert engine.error.strerror == "No space left on device"


def test_after_an_error_nothing_more_is_written():
    engine = EngineFile("/dev/full")
    engine.write(b"x" * 5000)
    first = engine.error
    assert engine.write(b"more") == 0
    engine.close()
    assert (engine.error, engine.size) == (first, 0)


def test_a_place_that_cannot_be_written_is_refused_by_name(tmp_path):
    with pytest.raises(WorkerError, match=r"e\.engine: No such file") as caught:
        EngineFile(str(tmp_path / "missing" / "e.engine"))
    assert caught.value.error_class == "PublishError"


# Precision: an engine is never written under one it does not have.


STRONG = SimpleNamespace(BuilderFlag=SimpleNamespace(TF32=1))  # a runtime without precision flags


class Tensor:
    def __init__(self, kind):
        self.dtype = SimpleNamespace(name=kind)


class Network:
    """As much of INetworkDefinition as the judgement on types reads."""

    def __init__(self, outputs, inputs=("FLOAT",), layers=("MATRIX_MULTIPLY",)):
        self._inputs = [Tensor(kind) for kind in inputs]
        self._layers = [([Tensor(kind) for kind in outputs], layers[0])]
        self._layers += [([None], layer) for layer in layers[1:]]
        self.num_layers = len(self._layers)
        self.num_inputs = len(self._inputs)

    def get_layer(self, index):
        tensors, name = self._layers[index]
        return SimpleNamespace(
            type=SimpleNamespace(name=name), num_outputs=len(tensors), get_output=tensors.__getitem__
        )

    def get_input(self, index):
        return self._inputs[index]


QUANTIZED = ("MATRIX_MULTIPLY", "QUANTIZE")
HAS_IT = [
    ("fp32", Network(["FLOAT"])),
    ("tf32", Network(["FLOAT"])),
    ("fp32", Network(["FLOAT", "INT32", "INT64", "BOOL"])),  # indices and masks have no precision
    ("fp32", Network(["FLOAT"], ["UINT8"])),  # an image
    ("fp32", Network(["FLOAT", "INT8"])),  # INT8 of a network without Q/DQ is plain data
    ("fp16", Network(["HALF"], ["HALF"])),
    ("fp16", Network(["HALF", "FLOAT"])),  # in part
    ("bf16", Network(["BF16", "FLOAT"])),
    ("int8", Network(["INT8", "FLOAT"], layers=QUANTIZED)),
    ("int8", Network(["INT8", "HALF"], layers=QUANTIZED)),  # the rest of it in half
    ("fp8", Network(["FP8", "HALF"], layers=QUANTIZED)),
    ("fp16", Network(["HALF", "INT8"], layers=QUANTIZED)),  # as `trtexec --fp16 --int8` makes it
    ("bf16", Network(["BF16", "FP8"], layers=QUANTIZED)),
    ("mixed", Network(["HALF", "BF16", "INT4"])),  # anything
    ("mixed", Network(["FLOAT"])),
]


@pytest.mark.parametrize(("precision", "network"), HAS_IT)
def test_a_network_of_the_promised_types_is_taken(precision, network):
    assert check_precision(STRONG, network, precision) is None


HAS_IT_NOT = [
    ("fp16", Network(["FLOAT"]), "no tensor of the model is HALF"),
    ("bf16", Network(["HALF"]), "no tensor of the model is BF16"),
    ("int8", Network(["FLOAT"]), "no tensor of the model is INT8"),
    ("int8", Network(["INT8", "FLOAT"]), "no tensor of the model is INT8"),  # INT8, but no Q/DQ
    ("fp8", Network(["HALF"], layers=QUANTIZED), "no tensor of the model is FP8"),
    ("fp32", Network(["HALF", "FLOAT"]), "write precision='fp16'"),
    ("tf32", Network(["HALF"]), "write precision='fp16'"),
    ("fp32", Network(["FLOAT"], ["HALF"]), "the model has HALF tensors"),  # an input counts
    ("fp32", Network(["INT8"], layers=QUANTIZED), "write precision='int8'"),
    ("fp16", Network(["HALF", "BF16"]), "write precision='mixed'"),  # two of them
    ("fp16", Network(["HALF", "INT4"], layers=QUANTIZED), "the model has INT4 tensors"),
    ("fp32", Network(["HALF", "INT8"], layers=QUANTIZED), "write precision='mixed'"),
    ("fp32", Network(["INT4"]), "write precision='mixed'"),  # one that has no name of its own yet
    ("int8", Network(["INT8", "FP4"], layers=QUANTIZED), "the model has FP4 tensors"),
]


@pytest.mark.parametrize(("precision", "network", "words"), HAS_IT_NOT)
def test_a_network_of_other_types_is_refused_with_what_to_write(precision, network, words):
    with pytest.raises(WorkerError) as caught:
        check_precision(STRONG, network, precision)
    assert words in str(caught.value)
    assert caught.value.error_class == "RecipeError"


def suggested(message):
    return message.rpartition("write precision='")[2].rstrip("'")


@pytest.mark.parametrize(
    ("precision", "network"), [(p, n) for p, n, words in HAS_IT_NOT if "no tensor" not in words]
)
def test_the_precision_that_is_suggested_is_then_taken(precision, network):
    with pytest.raises(WorkerError) as caught:
        check_precision(STRONG, network, precision)
    assert check_precision(STRONG, network, suggested(str(caught.value))) is None


# The parser's reasons.


class ParserError:
    def __init__(self, desc, node=3, name="", operator="", stack=()):
        self.desc = lambda: desc
        self.node = lambda: node
        self.node_name = lambda: name
        self.node_operator = lambda: operator
        self.local_function_stack = lambda: list(stack)
        self.local_function_stack_size = lambda: len(stack)


NO_LOG = SimpleNamespace(errors=[])
SAID = [
    (
        [ParserError("no importer", name="/enc/Gelu", operator="Gelu")],
        "the parser refused node 3 `/enc/Gelu` (Gelu): no importer",
    ),
    (
        [ParserError("false", operator="Unique")],
        "the parser refused node 3 (Unique): TensorRT does not support this operator; replace it in the "
        "ONNX, or give a plugin",
    ),
    ([ParserError("bad\n  axes")], "the parser refused node 3: bad axes"),  # one line
    (
        [ParserError("x", stack=["outer", "inner"])],
        "the parser refused node 3 in outer > inner: x",
    ),
    ([ParserError("x"), ParserError("y")], "the parser refused node 3: x (and 1 more in the log)"),
    ([], "the parser refused the model: no reason given"),
]


@pytest.mark.parametrize(("errors", "message"), SAID, ids=[m for _, m in SAID])
def test_the_parsers_errors_as_one_line(errors, message):
    assert _parser_message(errors, NO_LOG) == message


def test_what_stands_only_in_the_log_is_said_too():
    log = SimpleNamespace(errors=["failed to open w.bin"])
    assert _parser_message([], log) == "the parser refused the model: failed to open w.bin"
