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
from .option_checks import Place, hint, literal, messages_in, option_of, to_toml
from .options import DEFAULTS, parse
from .shapes import Shape, text

NAME = "engines.toml"
LARGEST = 16 << 20  # bytes
_OWN = ("onnx", "name", "hardware")
_HEADER = re.compile(r"\s*\[{1,2}\s*([^\[\]]+?)\s*\]")
_PART = re.compile(r"\"[^\"]*\"|'[^']*'|[A-Za-z0-9_-]+")
_KEY = re.compile(r"\s*(\"[^\"]*\"|'[^']*'|[A-Za-z0-9_-]+)\s*[.=]")
_SHAPE = re.compile(r"-?[0-9]+(?:x-?[0-9]+)*|scalar")


class EngineEntry(Value):
    """One engine. place: FILE:LINE of its table; options: of `env.Engine`, with paths as they are written;
    hardware: None for that of the run; keys: the line of each key."""

    place: str
    name: str
    onnx: str
    options: Mapping[str, Any]
    hardware: Any = None
    keys: Mapping[str, int] = {}

    def problem(self) -> tuple[str, str] | None:
        """FILE:LINE and text, if it has an option that no model can have."""
        try:
            with messages_in(toml=bool(self.keys)):
                parse(self.name, self.options)
        except RecipeError as error:
            return self.declared_at().at(option_of(str(error))), str(error)
        return None

    def declared_at(self) -> Place:
        """Its place, and that of its keys."""
        if not self.keys:
            return Place(self.place, 0)
        file, _, line = self.place.rpartition(":")
        return Place(file, int(line), self.keys)


class EnginesFileError(RecipeError):
    """What is wrong with an engines file. problems: FILE:LINE and text of each; entries: the other ones."""

    def __init__(self, problems: Sequence[tuple[str, str]], entries: Sequence[EngineEntry] = ()) -> None:
        super().__init__("; ".join(f"{place}: {text}" for place, text in problems))
        self.problems, self.entries = problems, entries


class _Problems:
    """What is wrong with a file, and where its tables and keys are."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.lines = path, _lines(text)
        self.found: list[tuple[str, str]] = []

    def keys(self, *table: str) -> dict[str, int]:
        """The line of each key of a table; under "", that of the table, or the first of the file."""
        return {"": 1, **self.lines.get(table, {})}

    def add(self, text: str, *table: str, key: str = "") -> None:
        keys = self.keys(*table)
        self.found.append((f"{self.path}:{keys.get(key, keys[''])}", text))


def read_engines(path: str, data: bytes) -> list[EngineEntry]:
    """The engines of an engines file. path: for messages. Raises EnginesFileError with every problem."""
    text, tables = _parse(path, data)
    problems = _Problems(path, text)
    for name in tables:
        if name not in ("defaults", "engine"):
            problems.add(f"[{name}]: write [defaults] or [engine.NAME]", name)
    defaults, engines = tables.get("defaults", {}), tables.get("engine", {})
    for name, table in (("defaults", defaults), ("engine", engines)):
        if not isinstance(table, Mapping):
            problems.add(f"{name} is not a table; write [{name}{'.NAME' * (name == 'engine')}]", key=name)
    if not isinstance(defaults, Mapping) or not isinstance(engines, Mapping):
        raise EnginesFileError(problems.found)
    defaults = _known(problems, "defaults", table=defaults, known=("hardware", *DEFAULTS))
    found: list[EngineEntry] = []
    for name, table in engines.items():
        if not isinstance(table, Mapping):
            problems.add(f"engine.{name} is not a table; write [engine.{name}]", "engine", key=name)
            continue
        table = _known(problems, "engine", name, table=table, known=(*_OWN, *DEFAULTS))
        found += _entries(problems, name, {**defaults, **table})
    if not found and not problems.found:
        problems.found.append((path, 'no engines; write [engine.NAME] with onnx = "FILE"'))
    if problems.found:
        raise EnginesFileError(problems.found, found)
    return found


def read_valid_engines(path: str, data: bytes) -> list[EngineEntry]:
    """The same where every option is one that some model can have. Raises EnginesFileError."""
    try:
        entries, found = read_engines(path, data), []
    except EnginesFileError as error:
        entries, found = list(error.entries), list(error.problems)
    found += [problem for problem in map(EngineEntry.problem, entries) if problem]
    if found:
        raise EnginesFileError(list(dict.fromkeys(found)), entries)
    return entries


def _parse(path: str, data: bytes) -> tuple[str, dict[str, Any]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        text = data.decode("utf-8-sig")
        return text, tomllib.loads(text)
    except UnicodeDecodeError:
        raise EnginesFileError([(path, "not UTF-8 text")]) from None
    except (ValueError, RecursionError) as error:  # ValueError: also of a number of 5,000 digits
        where = re.search(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)", str(error))
        line = (where[1] or text.count("\n") + 1) if where else 1
        why = str(error).replace(where[0], "") if where else str(error)
        raise EnginesFileError([(f"{path}:{line}", why)]) from None


def _lines(text: str) -> dict[tuple[str, ...], dict[str, int]]:
    """By table, the line of each of its keys; under "", that of the table. A table inside an engine's, such
    as [engine.NAME.shapes], is a key."""
    found: dict[tuple[str, ...], dict[str, int]] = {}
    table: tuple[str, ...] | None = ()
    for number, line in enumerate(text.split("\n"), 1):
        header = _HEADER.match(line)
        path = tuple(part.strip("\"'") for part in _PART.findall(header[1])) if header else (table or ())
        if header:
            depth = 2 if path[:1] == ("engine",) else 1
            table = path if len(path) <= depth else None
            inner = path[depth : depth + 1]
            keys = found.setdefault(path[:depth], {"": number})
            keys.setdefault(inner[0] if inner else "", number)
        elif table is not None and (key := _KEY.match(line)):
            found.setdefault(path, {}).setdefault(key[1].strip("\"'"), number)
    for name, line_number in found.get(("engine",), {}).items():  # written `NAME.onnx = …`
        found.setdefault(("engine", name), {"": line_number})
    return found


def _known(problems: _Problems, *path: str, table: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """The table without unknown options, which are problems."""
    for name in table:
        if name not in known:
            problems.add(f"unknown option {name}; {hint(name, known)}", *path, key=name)
    return {name: value for name, value in table.items() if name in known}


def _entries(problems: _Problems, table: str, options: dict[str, Any]) -> Iterator[EngineEntry]:
    """One entry for each precision of a table."""
    keys = {**problems.keys("defaults"), **problems.keys("engine", table)}
    place = f"{problems.path}:{keys['']}"

    def wrong(text: str, key: str) -> None:
        problems.found.append((f"{problems.path}:{keys.get(key, keys[''])}", text))

    onnx, name = options.pop("onnx", None), options.pop("name", table)
    if not isinstance(onnx, str) or not onnx:
        wrong(f'no onnx; write onnx = "models/{table}.onnx"', "onnx")
        return
    hardware = options.pop("hardware", None)
    try:
        with messages_in(toml=True):
            shapes = profiles_of(options.pop("shapes", None))
    except RecipeError as error:
        wrong(str(error), "shapes")
        return
    if shapes:
        options["shapes"] = shapes
    given = options.pop("precision", DEFAULTS["precision"])
    precisions = given if isinstance(given, list) else [given]
    if not precisions or any(precisions.count(each) > 1 for each in precisions):
        wrong(f"precision = {to_toml(precisions)}: write one, or a list of different ones", "precision")
    for precision in precisions:
        yield EngineEntry(place, name, onnx, {"precision": precision, **options}, hardware, keys)


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
            f"shape {literal(text)}: write 1x3x224x224, or MIN:OPT:MAX like 1x3x32x32:1x3x64x64:4x3x64x64"
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
