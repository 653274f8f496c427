"""A TensorRT that is nothing but its API surface: it refuses every name and argument that the
real one of that version lacks, and behaves no further than the worker needs to go on."""

import ctypes
import enum
import json
from pathlib import Path

FOLDER = Path(__file__).parent / "surfaces"
VERSIONS = sorted(path.stem for path in FOLDER.glob("*.json"))
CALIBRATION_TABLE = b"TRT-100300-EntropyCalibration2\nx: 3c010a14\n"


class Strict:
    """An object of one class of the surface. does: what its methods do; has: its properties."""

    def __init__(self, surface, name, does=(), /, **has):
        vars(self).update(_members=surface.members(name), _name=f"{surface.version} {name}")
        vars(self).update(_does=dict(does), _has=dict(has))

    def __getattr__(self, attribute):
        if attribute not in self._members:
            raise AttributeError(f"{self._name} has no {attribute}")
        parameters = self._members[attribute]
        if parameters == "property":
            return self._has[attribute]

        def method(*arguments, **named):
            if parameters is not None:
                given = list(parameters[: len(arguments)]) + list(named)
                assert len(arguments) <= len(parameters), f"{self._name}.{attribute}: too many"
                assert set(given) <= set(parameters), f"{self._name}.{attribute}: {given}"
            return self._does.get(attribute, lambda *a, **n: None)(*arguments, **named)

        return method

    def __setattr__(self, attribute, value):
        assert self._members.get(attribute) == "property", f"{self._name} has no {attribute}"
        self._has[attribute] = value


class Surface:
    """Stands for the module `tensorrt` or `tensorrt_rtx`."""

    def __init__(self, stem):
        data = json.loads((FOLDER / f"{stem}.json").read_text())
        self._api = data["api"]
        self.__name__, _, self.version = stem.partition("-")
        self.__version__ = self.version
        for name, members in self._api.items():
            if isinstance(members, list) and name not in ("init_libnvinfer_plugins",):
                numbers = name == "NetworkDefinitionCreationFlag"  # bits are made of them
                setattr(self, name, (enum.IntEnum if numbers else enum.Enum)(name, members))
        called_back = "IProgressMonitor IStreamWriter IInt8EntropyCalibrator2 IInt8MinMaxCalibrator"
        for name in called_back.split():
            if name in self._api:
                setattr(self, name, type(name, (), {}))
        severities = "INTERNAL_ERROR ERROR WARNING INFO VERBOSE"
        self.ILogger = type("ILogger", (), {"Severity": enum.IntEnum("Severity", severities)})
        self.notes = []
        self.kind, self.shape = "FLOAT", (-1, 8)
        self.calibrate = lambda calibrator, profiles: None  # what a build does with a calibrator
        self.fails = False

    def members(self, name):
        if name not in self._api:
            raise AttributeError(f"{self.version} has no class {name}")
        return self._api[name]

    def init_libnvinfer_plugins(self, logger, namespace):
        assert self._api["init_libnvinfer_plugins"] == ["logger", "namespace"]
        return True

    def Builder(self, logger):
        return Strict(self, "Builder", Bench(self).does(), num_DLA_cores=2)

    def OnnxParser(self, network, logger):
        return Strict(self, "OnnxParser", {"parse_from_file": lambda model: True}, num_errors=0)


class Bench:
    """What one builder makes: a network of an input `x`, of the surface's `shape`, and one layer."""

    def __init__(self, surface, kind=None):
        self._surface = surface
        self._kind = surface.DataType[kind or surface.kind]

    def does(self):
        return {
            "create_network": lambda flags=0: (
                self._surface.notes.append(("network", flags)) or self.network()
            ),
            "create_builder_config": self.config,
            "create_optimization_profile": self.profile,
            "build_serialized_network": self._plan,
            "build_serialized_network_to_stream": self._stream,
        }

    def _plan(self, network, config):
        self._calibrate(config)
        return None if self._surface.fails else b"ftrt" + bytes(96)

    def _calibrate(self, config):
        if getattr(config, "int8_calibrator", None) is not None:
            assert self._surface.BuilderFlag.INT8 in dict(self._surface.notes)["flags"]
            self._surface.calibrate(config.int8_calibrator, dict(self._surface.notes)["profiles"])

    def _stream(self, network, config, writer):
        self._calibrate(config)
        if self._surface.fails:
            return False
        writer.write(b"ftrt" + bytes(60))
        writer.write(bytes(36))
        return True

    def tensor(self):
        shape = self._surface.shape
        has = {"dtype": self._kind, "shape": shape, "is_shape_tensor": False, "name": "x"}
        return Strict(self._surface, "ITensor", **has)

    def network(self):
        layer = Strict(
            self._surface,
            "ILayer",
            {"get_output": lambda index: self.tensor()},
            type=self._surface.LayerType.CONVOLUTION,
            num_outputs=1,
        )
        does = {"get_layer": lambda index: layer, "get_input": lambda index: self.tensor()}
        counts = {"num_layers": 1, "num_inputs": 1, "num_outputs": 1}
        return Strict(self._surface, "INetworkDefinition", does, **counts)

    def config(self):
        flags, pools, sms = {self._surface.BuilderFlag.TF32}, {}, {}
        caches, profiles = [], []

        def set_cache(cache, ignore_mismatch):
            assert ignore_mismatch is False
            caches.append(cache)
            return True

        does = {
            "set_flag": flags.add,
            "get_flag": flags.__contains__,
            "clear_flag": flags.discard,
            "set_memory_pool_limit": pools.__setitem__,
            "get_memory_pool_limit": pools.__getitem__,
            "set_compute_capability": lambda sm, index: sms.__setitem__(index, sm) or True,
            "get_compute_capability": sms.__getitem__,
            "add_optimization_profile": lambda profile: 0,
            "set_calibration_profile": lambda profile: profiles.append(profile) or True,
            "create_timing_cache": self.cache,
            "set_timing_cache": set_cache,
            "get_timing_cache": lambda: caches[-1],
        }
        members = self._surface.members("IBuilderConfig")
        has = {name: None for name, kind in members.items() if kind == "property"}
        made = Strict(self._surface, "IBuilderConfig", does, **has)
        self._surface.notes.append(("config", made))
        self._surface.notes.append(("flags", flags))
        self._surface.notes.append(("profiles", profiles))
        return made

    def profile(self):
        shapes = {}
        does = {
            "set_shape": lambda name, low, usual, high: shapes.update({name: (low, usual, high)}),
            "get_shape": lambda name: shapes[name],
        }
        return Strict(self._surface, "IOptimizationProfile", does)

    def cache(self, data):
        entries = set(filter(None, bytes(data).split(b"\n")))

        def combine(other, ignore_mismatch):
            assert ignore_mismatch is False
            entries.update(filter(None, other.serialize().split(b"\n")))
            return True

        if b"garbage" in bytes(data):
            raise TypeError("factory function returned nullptr")
        does = {"serialize": lambda: b"\n".join(sorted(entries)), "combine": combine}
        return Strict(self._surface, "ITimingCache", does)


class Calibrates:
    """What a TensorRT does with a calibrator. names: of the inputs it asks for, and their sizes in
    bytes; table: what it finds; seen: the bytes of each batch."""

    def __init__(self, names=("x",), table=CALIBRATION_TABLE, sizes=(64,), stops_after=None):
        self.names, self.table, self.sizes, self.stops_after = list(names), table, sizes, stops_after
        self.seen, self.batch_size, self.known = [], None, None
        self.kinds, self.shapes = [], []

    def __call__(self, calibrator, profiles):
        self.kinds.append(type(calibrator).__mro__[1].__name__)
        self.shapes = [profile.get_shape("x") for profile in profiles]
        self.batch_size = calibrator.get_batch_size()
        self.known = calibrator.read_calibration_cache()
        if self.known is not None:
            return
        while self.stops_after is None or len(self.seen) < self.stops_after:
            pointers = calibrator.get_batch(self.names)
            if pointers is None:
                break
            assert all(type(pointer) is int for pointer in pointers)
            self.seen.append([ctypes.string_at(p, n) for p, n in zip(pointers, self.sizes)])
        lent = bytearray(self.table)
        calibrator.write_calibration_cache(memoryview(lent))
        lent[:] = bytes(len(lent))  # the memory is TensorRT's
