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
                # bits are made of them
                numbers = name in ("NetworkDefinitionCreationFlag", "TacticSource", "TensorFormat")
                setattr(self, name, (enum.IntEnum if numbers else enum.Enum)(name, members))
        called_back = "IProgressMonitor IStreamWriter IInt8EntropyCalibrator2 IInt8MinMaxCalibrator"
        for name in [*called_back.split(), "IOutputAllocator"]:
            if name in self._api:
                setattr(self, name, type(name, (), {}))
        severities = "INTERNAL_ERROR ERROR WARNING INFO VERBOSE"
        self.ILogger = type("ILogger", (), {"Severity": enum.IntEnum("Severity", severities)})
        self.notes = []
        self.kind, self.shape, self.layer = "FLOAT", (-1, 8), "CONVOLUTION"
        self.calibrate = lambda calibrator, profiles: None  # what a build does with a calibrator
        self.fails = False
        self.refusal = {}  # what the methods of the parser's only error return
        self.tuned = {}  # by name of a layer, its key in an editable timing cache, and the tactic chosen
        self.accepts = True  # a timing cache that was recorded elsewhere
        self.logger = None
        self.engine = None  # what a runtime makes of an engine's bytes: Plays, or None

    def members(self, name):
        if name not in self._api:
            raise AttributeError(f"{self.version} has no class {name}")
        return self._api[name]

    def init_libnvinfer_plugins(self, logger, namespace):
        assert self._api["init_libnvinfer_plugins"] == ["logger", "namespace"]
        return True

    def Builder(self, logger):
        self.logger = logger
        has = {name: 1 for name in ("max_batch_size",) if name in self.members("Builder")}
        return Strict(self, "Builder", RemoteExecutor(self).does(), num_DLA_cores=2, **has)

    def Runtime(self, logger):
        def load(data):
            self.notes.append(("loaded", bytes(data)))
            return self.engine and self.engine.loaded(self)

        made = Strict(self, "Runtime", {"deserialize_cuda_engine": load})
        self.notes.append(("runtime", made))
        return made

    def OnnxParser(self, network, logger):
        error = Strict(self, "ParserError", self.refusal) if self.refusal else None
        flags = set()
        self.notes.append(("parser flags", flags))
        does = {"parse_from_file": lambda model: error is None, "get_error": lambda index: error}
        does.update(set_flag=flags.add, get_flag=flags.__contains__)
        return Strict(self, "OnnxParser", does, num_errors=int(error is not None))


class RemoteExecutor:
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
        return None if self._surface.fails or not self._times(config) else b"ftrt" + bytes(96)

    def _times(self, config):
        """Choose a tactic for each layer, as with an editable timing cache; False at the first that is not in
        the cache, where that is an error."""
        surface, flags = self._surface, dict(self._surface.notes)["flags"]
        severity, cache = surface.ILogger.Severity, config.get_timing_cache() if surface.tuned else None
        for name, (key, tactic) in surface.tuned.items():
            surface.logger.log(severity.VERBOSE, f"Autotuning op {name}(key: {key})")
            if key in cache.queryKeys():
                continue
            if surface.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS in flags:
                surface.logger.log(severity.ERROR, "Assertion !errorOnMiss failed.")
                return False
            cache._has["entries"].add(f"{key} {tactic}".encode())
        return True

    def _calibrate(self, config):
        if getattr(config, "int8_calibrator", None) is not None:
            assert self._surface.BuilderFlag.INT8 in dict(self._surface.notes)["flags"]
            self._surface.calibrate(config.int8_calibrator, dict(self._surface.notes)["profiles"])

    def _stream(self, network, config, writer):
        self._calibrate(config)
        if self._surface.fails or not self._times(config):
            return False
        writer.write(b"ftrt" + bytes(60))
        writer.write(bytes(36))
        return True

    def tensor(self, name="x"):
        shape = self._surface.shape
        has = {"dtype": self._kind, "shape": shape, "is_shape_tensor": False, "name": name}
        return Strict(self._surface, "ITensor", **has)

    def network(self):
        layer = Strict(
            self._surface,
            "ILayer",
            {"get_output": lambda index: self.tensor()},
            type=self._surface.LayerType[self._surface.layer],
            name="first",
            num_outputs=1,
        )
        ends = {"x": self.tensor(), "y": self.tensor("y")}
        self._surface.notes.append(("ends", ends))
        does = {"get_layer": lambda index: layer, "get_input": lambda index: ends["x"]}
        does["get_output"] = lambda index: ends["y"]
        counts = {"num_layers": 1, "num_inputs": 1, "num_outputs": 1}
        return Strict(self._surface, "INetworkDefinition", does, **counts)

    def config(self):
        flags, pools, sms = {self._surface.BuilderFlag.TF32}, {}, {}
        caches, profiles, sources, features, devices = [], [], [0], set(), {}

        def set_cache(cache, ignore_mismatch):
            assert ignore_mismatch is False
            caches.append(cache)
            return self._surface.accepts or not cache._has["entries"]

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
            "set_tactic_sources": lambda tactic_sources: sources.append(tactic_sources) or True,
            "get_tactic_sources": lambda: sources[-1],
            "set_preview_feature": lambda feature, enable: features.add(feature),
            "get_preview_feature": features.__contains__,
            "set_device_type": lambda layer, device_type: devices.update({layer.name: device_type}),
            "can_run_on_DLA": lambda layer: layer.name != "first",
        }
        members = self._surface.members("IBuilderConfig")
        has = {name: None for name, kind in members.items() if kind == "property"}
        made = Strict(self._surface, "IBuilderConfig", does, **has)
        self._surface.notes.append(("config", made))
        self._surface.notes.append(("flags", flags))
        self._surface.notes.append(("sources", sources))
        self._surface.notes.append(("features", features))
        self._surface.notes.append(("devices", devices))
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

        def query(key):
            tactic = next(entry.split()[1] for entry in entries if entry.split()[0] == key.encode())
            return Strict(self._surface, "TimingCacheValue", tacticHash=int(tactic, 16), timingMSec=0.5)

        does = {
            "serialize": lambda: b"\n".join(sorted(entries)),
            "combine": combine,
            "queryKeys": lambda: [entry.split()[0].decode() for entry in sorted(entries)],
            "query": query,
        }
        if b"unreadable" in bytes(data):  # the real one logs a warning and makes an empty cache
            entries.clear()
        return Strict(self._surface, "ITimingCache", does, entries=entries)


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


class Plays:
    """An engine that is loaded and run: `compute` gets {input: (shape, bytes)} and gives the same of its
    outputs. inputs, outputs: {name: DataType}; profiles: [{input: (min, max)}]; late: outputs whose
    shape the data decide; on_host: tensors in the host's memory; taken: what was run, by profile."""

    def __init__(self, compute, inputs, outputs, profiles=(), late=(), on_host=()):
        self.compute, self.inputs, self.outputs = compute, inputs, outputs
        self.profiles, self.late, self.on_host = list(profiles), late, on_host
        self.runs, self.taken, self.form = True, [], "LINEAR"

    def loaded(self, surface):
        names = [*self.inputs, *self.outputs]
        mode, place = surface.TensorIOMode, surface.TensorLocation
        does = {
            "get_tensor_name": lambda index: names[index],
            "get_tensor_mode": lambda name: mode.INPUT if name in self.inputs else mode.OUTPUT,
            "get_tensor_dtype": lambda name: surface.DataType[{**self.inputs, **self.outputs}[name]],
            "get_tensor_format": lambda name: surface.TensorFormat[self.form],
            "get_tensor_location": lambda name: place.HOST if name in self.on_host else place.DEVICE,
            "get_tensor_profile_shape": lambda name, profile_index: [
                self.profiles[profile_index][name][each] for each in (0, 0, 1)
            ],
            "create_execution_context": lambda: self.context(surface),
        }
        counts = {"num_io_tensors": len(names), "num_optimization_profiles": len(self.profiles)}
        return Strict(surface, "ICudaEngine", does, **counts)

    def context(self, surface):
        shapes, places, allocators, profile = {}, {}, {}, [0]

        def given():
            return {name: (shapes[name], self._at(places[name], shapes[name], name)) for name in shapes}

        def shape_of(name):
            shape = self.compute(given())[name][0]
            return (-1, *shape[1:]) if name in self.late else shape

        def execute(stream_handle):
            assert stream_handle
            self.taken.append((profile[0], given()))
            for name, (shape, data) in self.compute(given()).items():
                if name in self.late:
                    places[name] = allocators[name].reallocate_output(name, 0, len(data), 256)
                    if not places[name]:
                        return False
                    allocators[name].notify_shape(name, shape)
                ctypes.memmove(places[name], data, len(data))
            return self.runs

        does = {
            "set_input_shape": lambda name, shape: shapes.update({name: tuple(shape)}) or True,
            "set_tensor_address": lambda name, memory: places.update({name: memory}) or True,
            "set_output_allocator": lambda name, output_allocator: (
                allocators.update({name: output_allocator}) or True
            ),
            "infer_shapes": lambda: sorted(set(self.inputs) - set(shapes)),
            "get_tensor_shape": shape_of,
            "set_optimization_profile_async": lambda profile_index, stream_handle: (
                profile.__setitem__(0, profile_index) or True
            ),
            "execute_async_v3": execute,
        }
        return Strict(surface, "IExecutionContext", does)

    def _at(self, address, shape, name):
        count = SIZES[{**self.inputs, **self.outputs}[name]]
        for dimension in shape:
            count *= dimension
        return ctypes.string_at(address, count)


SIZES = {"FLOAT": 4, "HALF": 2, "BF16": 2, "INT64": 8, "INT32": 4, "INT8": 1, "UINT8": 1, "BOOL": 1}
