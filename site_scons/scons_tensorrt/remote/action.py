"""The action: a compile described as a JSON file, with its inputs by sha256.

Only the sha256 of the action is sent to the worker. The reader checks the key against the ingredients,
the ingredients against recipe and hardware, and the inputs against their digests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..artifact.cache_key import make_key
from ..artifact.filename import EngineFilename
from ..artifact.state_folder import StateFolder
from ..build.engine_spec import TIMINGS, EngineSpec
from ..errors import DispatchError
from ..hardware.choose_hardware import Hardware
from ..hardware.signature import HardwareSignature
from ..recipe.key_ingredients import input_name, value_fields
from ..recipe.options import Recipe
from ..values import Value

SCHEMA = 1
PINNED = 2  # with a timing_cache, which earlier versions would ignore
LARGEST = 4 << 20  # bytes of an action
_DATA = input_name("data") + " "


class Input(Value):
    """name: of the ingredient; label: its relative path; size: bytes."""

    name: str
    label: str
    sha256: str
    size: int


def write_action(spec: EngineSpec, state: StateFolder) -> tuple[bytes, list[tuple[Input, Path]]]:
    """The action of an engine, and its input files. Raises OSError."""
    inputs = [
        (Input(name, _label(at, path, state), spec.ingredients[name], path.stat().st_size), path)
        for at, (name, path) in enumerate(spec.inputs().items())
    ]
    data = {
        "schema": PINNED if spec.recipe.timing_cache else SCHEMA,
        "engine": spec.filename,
        "ingredients": dict(spec.ingredients),
        "recipe": spec.recipe.to_json(),
        "timeout_s": spec.recipe.timeout_s,
        "hardware": {
            "name": spec.hardware.name,
            "signature": spec.hardware.signature.to_json(),
        },
        "source": spec.source,
        "inputs": [list(each) for each, _ in inputs],
    }
    return json.dumps(data, sort_keys=True).encode("utf-8"), inputs


def _label(at: int, path: Path, state: StateFolder) -> str:
    """The relative path, numbered for a file outside the tree: two may have the same name."""
    label = state.relative(path)
    return f"elsewhere/{at}/{path.name}" if os.path.isabs(label) else label


def _text(value: Any) -> str:
    """A text that can be encoded. Raises ValueError otherwise."""
    os.fsencode(str(value))
    return str(value)


def _timeout(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not value > 0:
        raise ValueError("timeout_s is not a number of seconds above 0")
    return float(value)


class Action(Value):
    """A parsed action."""

    filename: str
    ingredients: Mapping[str, str]
    recipe: Mapping[str, Any]
    timeout_s: float | None
    hardware: Hardware
    source: str
    inputs: tuple[Input, ...]

    @property
    def key(self) -> str:
        return make_key(self.filename, self.ingredients)

    @classmethod
    def read(cls, data: bytes) -> Action:
        """Raises DispatchError if it is damaged or from another version."""
        try:
            fields = json.loads(data)
            if fields["schema"] not in (SCHEMA, PINNED):
                raise DispatchError("the action was written by another version of scons-tensorrt")
            said = fields["hardware"]
            signature = HardwareSignature.from_json(said["signature"], "the action")
            action = cls(
                EngineFilename.parse(fields["engine"]).build(),
                {_text(name): _text(text) for name, text in fields["ingredients"].items()},
                dict(fields["recipe"]),
                _timeout(fields["timeout_s"]),
                Hardware(said["name"], signature, "an action"),
                _text(fields["source"]),
                tuple(
                    Input(str(name), _text(label), str(sha256), int(size))
                    for name, label, sha256, size in fields["inputs"]
                ),
            )
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
            raise DispatchError(f"the action is damaged ({error!r})") from None
        return action

    def places(self, folder: Path) -> list[tuple[Input, Path]]:
        """The path of each input. Raises DispatchError for one outside `folder`."""
        return [(each, _below(folder, each.label)) for each in self.inputs]

    def spec(self, folder: Path) -> EngineSpec:
        """The spec of the engine, for a build in `folder`. Raises DispatchError if the action contradicts
        its ingredients."""
        paths = {each.name: path for each, path in self.places(folder)}
        onnx = paths.get(input_name("onnx"))
        if onnx is None:
            raise DispatchError("the action has no ONNX")
        external = {name.removeprefix(_DATA): path for name, path in paths.items() if name.startswith(_DATA)}
        for location in external:  # the compile creates a link of this name in its folder
            _below(folder, location)
        model = EngineFilename.parse(self.filename).model
        by_kind = {
            kind: [path for name, path in paths.items() if name.startswith(input_name(kind) + " ")]
            for kind in ("plugin", "samples")
        }
        try:
            known = {path.name: path for path in by_kind["plugin"]}
            plugins = [known[name] for name in self.recipe["plugins"]]  # in the order of loading
            recipe = Recipe.from_json(model, self.recipe, plugins, paths.get(TIMINGS))
        except (LookupError, TypeError, ValueError) as error:
            raise DispatchError(
                f"the action was written by another version of scons-tensorrt ({error!r})"
            ) from None
        recipe = recipe._replace(timeout_s=self.timeout_s)
        self._check(recipe)
        engine = folder / "engine" / self.filename
        spec = EngineSpec(
            *(engine, recipe, self.hardware, self.ingredients, onnx, self.source, external),
            samples=next(iter(by_kind["samples"]), None),
        )
        if spec.inputs().keys() != paths.keys():
            raise DispatchError("the action's inputs do not match its recipe")
        return spec

    def _check(self, recipe: Recipe) -> None:
        stated = {k: v for k, v in self.ingredients.items() if not k.startswith("input ")}
        if stated != value_fields(recipe, self.hardware.signature):
            raise DispatchError("the action's ingredients do not match its recipe and hardware")
        inputs = {k: v for k, v in self.ingredients.items() if k.startswith("input ")}
        if inputs != {each.name: each.sha256 for each in self.inputs}:
            raise DispatchError("the action's inputs do not match its ingredients")


def _below(folder: Path, label: str) -> Path:
    path = PurePosixPath(label)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in label:
        raise DispatchError(f"the action names {label!r}, which is not a path inside a folder")
    return folder / "inputs" / path
