"""One `env.Engine` of this run: what it declares, and what is known of it so far."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Node

from ..compile.wanted import Verdict, Wanted, judge
from ..errors import EngineError, PublishError, RecipeError
from ..identity.hardware import Hardware
from ..recipe.key import input_name, value_fields
from ..recipe.onnx_file import OnnxSummary
from ..recipe.options import Recipe
from ..recipe.shapes import problems

if TYPE_CHECKING:
    from .session import Session


class Declared:
    """hardware: None when it could not be resolved, and then `problem` says why; target: the
    engine's node; onnx, plugins: the source nodes; reported: a line of it was printed."""

    def __init__(
        self,
        session: Session,
        name: str,
        recipe: Recipe,
        hardware: Hardware | None,
        problem: EngineError | None,
        path: Path,
    ) -> None:
        self._session = session
        self.name = name
        self.recipe = recipe
        self.hardware = hardware
        self.problem = problem
        self.path = path
        self.label = session.state.relative(path)
        self.python = ""
        self.target: Any = None
        self.pair: Any = ()
        self.onnx: Any = None
        self.plugins: list[Any] = []
        self.considered = self.reported = self.kept = False
        self.made: str | None = None  # sha256 of what this run made or adopted
        self.judged_s = 0.0
        self._verdict: Verdict | None = None
        self._looked: set[Any] = set()

    @cached_property
    def source(self) -> str:
        """The ONNX as people know it: below the top, or by its last two folders and name."""
        path = self._session.state.relative(self.onnx.get_abspath())
        return "/".join(path.split("/")[-3:]) if os.path.isabs(path) else path

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """The ingredients that are not files, none of which needs a file to be there."""
        return value_fields(self.recipe, self.hardware.signature) if self.hardware else {}

    @property
    def judged(self) -> Verdict | None:
        """The judgement, if there was one."""
        return self._verdict

    @property
    def current(self) -> bool:
        """Whether the engine is what is wanted, as judged before or made by this run."""
        return bool(self.made or (self._verdict and self._verdict.current))

    @property
    def sha256(self) -> str | None:
        """Of the engine's bytes, as far as they were judged or made."""
        return self.made or (self._verdict.sha256 if self._verdict else None)

    def state(self) -> int:
        """SCons's state of the pair: of the node that it went further with."""
        engine, sidecar = self.pair
        return max(int(engine.get_state()), int(sidecar.get_state()))

    def consider(self) -> None:
        """This run asks for the engine: its hardware is named before anything else is said."""
        self.considered = True
        self._session.considered(self)

    def looked_at(self, node: Any) -> None:
        """SCons looks at each node of the pair once a build; in an interactive session a second
        look is another build."""
        if node in self._looked:
            self._looked, self._verdict = set(), None
            self.reported, self.made = False, None
            self._session.again()
        self._looked.add(node)

    def verdict(self) -> Verdict:
        """The judgement before anything is built. Raises EngineError."""
        if self._verdict is None:
            began = time.monotonic()
            self._verdict = judge(self.wanted(), self._session.state, self._session.memo)
            self.judged_s = time.monotonic() - began
        return self._verdict

    def wanted(self) -> Wanted:
        """The engine as its sources are now. Raises EngineError, naming the source at fault."""
        if self.hardware is None:
            raise self.problem or RecipeError(f"{self.label}: no hardware")
        onnx = real_path(self.onnx)
        summary = self._summary(onnx)
        recipe = self.recipe
        if self.plugins:
            recipe = replace(recipe, plugins=tuple(real_path(node) for node in self.plugins))
        ingredients = dict(self.fields)
        ingredients[input_name("onnx")] = self._digest(onnx, self.source)
        external = {}
        for location, least in summary.external.items():
            path = real_path(data_node(self.onnx, location))
            label = f"external data {location!r} of {self.source}"
            ingredients[input_name("data", location)] = self._digest(path, label)
            if path.stat().st_size < least:
                raise RecipeError(
                    f"{label} has {path.stat().st_size} bytes and the model needs {least}: it is "
                    "truncated, or a pointer file of git-lfs; fetch it again"
                )
            external[location] = path
        for path in recipe.plugins:
            ingredients[input_name("plugin", path.name)] = self._digest(path, f"plugin {path.name}")
        return Wanted(self.path, recipe, self.hardware, ingredients, onnx, self.source, external)

    def _summary(self, onnx: Path) -> OnnxSummary:
        try:
            summary = self._session.summary(str(onnx))
        except RecipeError as error:
            raise RecipeError(f"{self.source}: {error}") from None
        except OSError as error:
            raise RecipeError(f"{self.source}: {error.strerror}; check the path") from None
        faults = problems(self.recipe.profiles, summary.inputs)
        if faults:
            raise RecipeError(f"{self.source}: {'; '.join(faults)}")
        return summary

    def _digest(self, path: Path, label: str) -> str:
        try:
            return self._session.memo.sha256(path)
        except IsADirectoryError:
            raise RecipeError(f"{label} is a folder; name the file") from None
        except FileNotFoundError:
            raise RecipeError(f"{label} is missing: {path}; put it there") from None
        except OSError as error:
            raise PublishError(f"{label}: {error.strerror}: {path}") from None

    def source_missing(self) -> bool:
        """Whether SCons itself will refuse this engine before its action is asked."""
        sources = [self.onnx, *self.plugins]
        return any(not node.has_builder() and not real_path(node).exists() for node in sources)

    def blocked_by(self) -> str | None:
        """The input whose own builder failed, so that this engine's action was never asked."""
        for node in self.target.children():
            if node.get_state() == SCons.Node.failed:
                return self._session.state.relative(node.get_abspath())
        return None

    def awaits(self) -> str | None:
        """The input that this run built itself (under -n: would build), as people know it."""
        for node in self.target.children():
            if node.has_builder() and node.get_state() == SCons.Node.executed:
                return self._session.state.relative(node.get_abspath())
        return None

    def to_json(self) -> dict[str, Any]:
        """For `.trt/declared.json`."""
        return {
            "name": self.name,
            "engine": self.label,
            "source": self.source,
            "onnx": self._session.from_top(self.onnx.get_abspath()),
            "hardware": self.hardware and self.hardware.name,
            "recipe": self.recipe.to_json(),
            "ingredients": self.fields,
        }


def real_path(node: Any) -> Path:
    """Where a node's bytes are: in the tree, in a Repository, or, for a VariantDir's copy that is
    not made yet (under -n), at its source."""
    path = node.rfile().get_abspath()
    if not os.path.exists(path) and not node.has_builder():
        source = node.srcnode().rfile().get_abspath()
        path = source if os.path.exists(source) else path
    return Path(path)


def data_node(onnx: Any, location: str) -> Any:
    """The node of an external-data file; `./` because SCons takes a leading `#` for the top."""
    return onnx.dir.File(f"./{location}")
