"""The jobs of the two workers: `build/` writes them as JSON, the workers read them.

A worker gets this module as text, too. `typing` and `dataclasses` would slow down its start.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NamedTuple
else:

    def NamedTuple(name, fields):
        return namedtuple(name, [field for field, _ in fields])


BuildOptions = NamedTuple(
    "BuildOptions",
    [
        ("precision", str),
        ("workspace_mb", int),  # MiB
        ("flags", "list[str]"),  # names of BuilderFlag
        ("profiles", "list[dict[str, list[list[int]]]]"),  # by input: minimum, optimum and maximum shape
        ("memory_pools", "dict[str, int]"),  # bytes, by pool
        ("settings", "dict[str, int | str]"),  # see settings.py
        ("strongly_typed", bool),
    ],
)

CalibrationJob = NamedTuple(
    "CalibrationJob",
    [
        ("method", str),  # see CALIBRATORS of calibrate.py
        ("samples", str),  # path of a file of worker/onnx/calibration_batches.py
        ("cache", str),  # path of the calibration cache
        ("known", "str | None"),  # its bytes in hex; None to calibrate
    ],
)

PinnedKernels = NamedTuple(
    "PinnedKernels",
    [
        ("label", str),  # of the file of `timing_cache=`
        ("start", "str | None"),  # path of a serialized timing cache; None: an empty one
        ("kernels", "dict[str, str]"),  # by key, the hash of the tactic, in that cache
        ("record", "str | None"),  # path to write the cache to; None: use its kernels alone
    ],
)


class CompileJob(
    NamedTuple(
        "CompileJob",
        [
            ("python", str),  # the interpreter that runs the worker
            ("environment", "dict[str, str]"),  # more than the canonical environment
            ("product", str),  # the module: tensorrt or tensorrt_rtx
            ("runtime_version", str),
            ("package_folder", str),  # where the module is
            ("library_path", "str | None"),  # the user's LD_LIBRARY_PATH
            ("hardware", "dict[str, Any]"),  # the JSON of the hardware signature
            ("architectures", "list[int]"),  # compute capabilities, for example 87; empty: the runtime's own
            ("plugins", "list[tuple[str, int]]"),  # path, and the descriptor of the verified file
            ("folder", str),  # working directory of the compile
            ("onnx", str),  # name of the model in that folder
            ("input_bytes", int),  # of the ONNX and its external data
            ("output", str),  # path of the engine to write
            ("timing_cache", "str | None"),
            ("recipe", BuildOptions),
            ("calibration", "CalibrationJob | None"),
            ("pinned", "PinnedKernels | None"),
        ],
    )
):
    """One compile. All paths are absolute, except `onnx`."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        more = {name: known and known._asdict() for name, known in self._optional().items()}
        return {**self._asdict(), "recipe": self.recipe._asdict(), **more}

    def _optional(self) -> dict[str, Any]:
        return {"calibration": self.calibration, "pinned": self.pinned}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompileJob:
        """Raises KeyError or TypeError."""
        known, pinned = data["calibration"], data["pinned"]
        return cls(
            **{
                **{name: data[name] for name in cls._fields},
                "recipe": BuildOptions(**data["recipe"]),
                "calibration": CalibrationJob(**known) if known else None,
                "pinned": PinnedKernels(**pinned) if pinned else None,
            }
        )


class RunJob(
    NamedTuple(
        "RunJob",
        [
            ("product", str),
            ("runtime_version", str),
            ("package_folder", str),
            ("library_path", "str | None"),
            ("hardware", "dict[str, Any]"),
            ("architectures", "list[int]"),
            ("plugins", "list[tuple[str, int]]"),
            ("engine", str),  # its path
            ("sha256", str),
            ("flags", "list[str]"),
            ("settings", "dict[str, int | str]"),
            ("inputs", str),  # path of a file of samples, see common/array_file.py
            ("outputs", str),  # path of the file to write
            ("runs", "list[str]"),  # names of the samples, for messages
        ],
    )
):
    """One engine to run on samples. Fields as in `CompileJob`."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        return self._asdict()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunJob:
        """Raises KeyError."""
        return cls(**{name: data[name] for name in cls._fields})
