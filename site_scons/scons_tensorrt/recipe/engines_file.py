"""`engines.toml`: engines and their options, for a repo without a SConstruct of its own.

    [defaults]
    precision = "fp16"

    [engine.dinov2_vpr]
    onnx = "models/dinov2_vpr.onnx"
    shapes = { image = "1x3x224x224:4x3x224x224:8x3x224x224" }

Each table `[engine.NAME]` has `onnx`, and any option of `env.Engine`; `precision` and `hardware` may be
lists. `name` is the model's name where it is not that of the table: for two tables of one model. Paths are
relative to the folder of the file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..values import Value
from .onnx.summary import OnnxInput
from .options import DEFAULTS, parse
from .shapes import Shape, text
from .values import hint

NAME = "engines.toml"
LARGEST = 16 << 20  # bytes
_OWN = ("onnx", "name", "hardware")
_SHAPE = re.compile(r"-?[0-9]+(?:x-?[0-9]+)*|scalar")


class EngineEntry(Value):
    """One engine. place: FILE:LINE of its table; options: of `env.Engine`, with paths as they are written;
    hardware: None for that of the run."""

    place: str
    name: str
    onnx: str
    options: Mapping[str, Any]
    hardware: Any = None

    def check(self) -> None:
        """Raise RecipeError, with FILE:LINE, for options that no model can have."""
        try:
            parse(self.name, self.options)
        except RecipeError as error:
            raise RecipeError(f"{self.place}: {error}") from None


def read_engines(path: str, data: bytes) -> list[EngineEntry]:
    """The engines of an engines file. path: for messages. Raises RecipeError with FILE:LINE."""
    text, tables = _parse(path, data)
    for name in tables:
        if name not in ("defaults", "engine"):
            raise RecipeError(f"{_place(path, text, name)}: [{name}]: write [defaults] or [engine.NAME]")
    defaults, engines = tables.get("defaults", {}), tables.get("engine", {})
    for name, table in (("defaults", defaults), ("engine", engines)):
        if not isinstance(table, Mapping):
            raise RecipeError(f"{path}: {name} is not a table; write [{name}{'.NAME' * (name == 'engine')}]")
    _check_options(_place(path, text, "defaults"), defaults, known=("hardware", *DEFAULTS))
    found: list[EngineEntry] = []
    for name, table in engines.items():
        place = _place(path, text, f"engine.{name}")
        if not isinstance(table, Mapping):
            raise RecipeError(f"{place}: engine.{name} is not a table; write [engine.{name}]")
        _check_options(place, table, known=(*_OWN, *DEFAULTS))
        found += _entries(place, name, {**defaults, **table})
    if not found:
        raise RecipeError(f'{path}: no engines; write [engine.NAME] with onnx = "FILE"')
    return found


def _parse(path: str, data: bytes) -> tuple[str, dict[str, Any]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        text = data.decode("utf-8-sig")
        return text, tomllib.loads(text)
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # ValueError: also of a number of 5,000 digits
        where = re.search(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)", str(error))
        line = (where[1] or text.count("\n") + 1) if where else 1
        why = str(error).replace(where[0], "") if where else str(error)
        raise RecipeError(f"{path}:{line}: {why}") from None


def _place(path: str, text: str, table: str) -> str:
    """FILE:LINE of a table; the first line where its header is written another way."""
    parts = [rf"[\"']?{re.escape(part)}[\"']?" for part in table.split(".")]
    header = re.compile(r"^\s*\[\s*" + r"\s*\.\s*".join(parts) + r"\s*[\].]", re.MULTILINE)
    found = header.search(text)
    start = found.end() if found else 0
    return f"{path}:{text.count(chr(10), 0, start) + 1}"


def _check_options(place: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in table:
        if name not in known:
            raise RecipeError(f"{place}: unknown option {name}; {hint(name, known)}")


def _entries(place: str, table: str, options: dict[str, Any]) -> Iterator[EngineEntry]:
    """One entry for each precision of a table."""
    onnx, name = options.pop("onnx", None), options.pop("name", table)
    if not isinstance(onnx, str) or not onnx:
        raise RecipeError(f'{place}: no onnx; write onnx = "models/{table}.onnx"')
    hardware = options.pop("hardware", None)
    try:
        shapes = profiles_of(options.pop("shapes", None))
    except RecipeError as error:
        raise RecipeError(f"{place}: {error}") from None
    if shapes:
        options["shapes"] = shapes
    given = options.pop("precision", DEFAULTS["precision"])
    precisions = given if isinstance(given, list) else [given]
    if not precisions or any(precisions.count(each) > 1 for each in precisions):
        raise RecipeError(f"{place}: precision={precisions}: write one, or a list of different ones")
    for precision in precisions:
        yield EngineEntry(place, name, onnx, {"precision": precision, **options}, hardware)


def profiles_of(shapes: Any) -> Any:
    """The option `shapes` where a shape may also be text, `1x3x224x224` or `MIN:OPT:MAX`. Raises
    RecipeError."""
    if isinstance(shapes, list) and all(isinstance(each, Mapping) for each in shapes):
        return [profiles_of(each) for each in shapes]
    if not isinstance(shapes, Mapping):
        return shapes
    return {name: parse_shape(value) if isinstance(value, str) else value for name, value in shapes.items()}


def parse_shape(text: str) -> tuple[Shape, Shape, Shape]:
    """`1x3x224x224`, or min, opt and max joined by colons: three shapes. Raises RecipeError."""
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(_SHAPE.fullmatch(part) for part in parts):
        raise RecipeError(
            f"shape {text!r}: write 1x3x224x224, or MIN:OPT:MAX like 1x3x32x32:1x3x64x64:4x3x64x64"
        )
    shapes = [() if part == "scalar" else tuple(map(int, part.split("x"))) for part in parts]
    low, usual, high = shapes * (3 // len(shapes))
    return low, usual, high


def format_shape(bounds: Sequence[Sequence[int]]) -> str:
    """The inverse of `parse_shape`."""
    low, usual, high = map(tuple, bounds)
    return text((low, usual, high)).replace("..", ":")


def propose_shapes(inputs: Sequence[OnnxInput]) -> dict[str, tuple[Shape, Shape, Shape]]:
    """A profile for the dynamic inputs of a model, to be corrected by a person: a batch of 1 to 8, images of
    224 pixels, other lengths of 128."""
    found = {}
    for each in inputs:
        if not each.dynamic or each.shape is None:
            continue
        usual = [
            size if size >= 0 else 1 if axis == 0 else 224 if len(each.shape) == 4 else 128
            for axis, size in enumerate(each.shape)
        ]
        largest = list(usual)
        if each.shape[:1] == (-1,):
            largest[0] = 8
        found[each.name] = (tuple(usual), tuple(usual), tuple(largest))
    return found


def dump_engines(engines: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of an engines file, which `read_engines` reads. engines: by name, with `onnx`, and `shapes` by
    input."""
    lines = ["# Engines of this repo; every option: docs/recipes.md of scons-tensorrt.", "", "[defaults]"]
    lines += ['precision = "fp32"  # "fp16" is faster; for TensorRT for RTX it needs the extra `convert`', ""]
    for name, table in engines.items():
        lines += [f"[engine.{name}]", f"onnx = {_string(table['onnx'])}"]
        shapes = table.get("shapes", {})
        if shapes:
            lines.append("# min:opt:max, as proposed; set the sizes that you need")
            lines.append(f"[engine.{name}.shapes]")
            lines += [f"{_string(key)} = {_string(format_shape(value))}" for key, value in shapes.items()]
        lines.append("")
    return "\n".join(lines)


def _string(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML basic string


def model_name(path: str) -> str:
    """A model's name from its file's: lower-case words joined by single underscores."""
    words = re.findall(r"[a-z0-9]+", Path(path).stem.lower())
    return "_".join(words)[:64].strip("_") or "model"


def distinct_name(path: str, taken: Collection[str]) -> str:
    """A model's name from its file's and the folders above it, as many as make it another than those `taken`;
    else with a number."""
    parts = Path(path).parts
    longer = (model_name("_".join(parts[-count:])) for count in range(1, len(parts) + 1))
    short = model_name(path)[:60].strip("_")
    numbered = (f"{short}_{number}" for number in range(2, len(taken) + 3))
    return next(name for name in (*longer, *numbered) if name not in taken)
