"""One `env.Engine` of this run: what it declares, and what is known of it so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Node

from ..compile.wanted import Verdict, Wanted, judge
from ..errors import EngineError, PublishError, RecipeError
from ..identity.hardware import Hardware
from ..recipe.key import input_name, value_fields
from ..recipe.onnx_file import external_paths
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
        self.onnx: Any = None
        self.plugins: list[Any] = []
        self.considered = self.reported = self.kept = False
        self.judged_s = 0.0
        self._verdict: Verdict | None = None

    @property
    def source(self) -> str:
        """The ONNX as people know it: below the top, or by its last two folders and name."""
        path = Path(self._session.state.relative(self.onnx.get_abspath()))
        return str(path) if not path.is_absolute() else "/".join(path.parts[-3:])

    def state(self) -> int:
        return int(self.target.get_state())

    def files(self) -> Iterator[Any]:
        """The nodes whose bytes matter: sources and the engine."""
        yield self.onnx
        yield from self.plugins
        yield self.target

    def consider(self) -> None:
        """This run asks for the engine: its hardware is named before anything else is said."""
        self.considered = True
        self._session.considered(self)

    def verdict(self) -> Verdict:
        """The judgement of this run, before anything was built. Raises EngineError."""
        if self._verdict is None:
            began = time.monotonic()
            self._verdict = judge(self.wanted(), self._session.state, self._session.memo)
            self.judged_s = time.monotonic() - began
        return self._verdict

    def wanted(self) -> Wanted:
        """The engine as its sources are now. Raises EngineError, naming the source at fault."""
        if self.hardware is None:
            raise self.problem or RecipeError(f"{self.label}: no hardware")
        onnx = Path(self.onnx.rfile().get_abspath())
        try:
            summary = self._session.summary(str(onnx))
        except RecipeError as error:
            raise RecipeError(f"{self.source}: {error}") from None
        except OSError as error:
            raise RecipeError(f"{self.source}: {error.strerror}; check the path") from None
        faults = problems(self.recipe.profiles, summary.inputs)
        if faults:
            raise RecipeError(f"{self.source}: {'; '.join(faults)}")
        external = dict(zip(summary.external, self._external(onnx, summary)))
        ingredients = value_fields(self.recipe, self.hardware.signature)
        ingredients[input_name("onnx")] = self._digest(onnx, self.source)
        for location, path in external.items():
            label = f"external data {location!r} of {self.source}"
            ingredients[input_name("data", location)] = self._digest(path, label)
        for path in self.recipe.plugins:
            ingredients[input_name("plugin", path.name)] = self._digest(path, f"plugin {path.name}")
        return Wanted(self.path, self.recipe, self.hardware, ingredients, onnx, self.source, external)

    def _external(self, onnx: Path, summary: Any) -> list[Path]:
        folder = self.onnx.dir
        return [
            Path(folder.File(location).rfile().get_abspath())
            for location, _ in zip(summary.external, external_paths(onnx, summary))
        ]

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
        return not self.onnx.has_builder() and not self.onnx.rexists()

    def awaits(self) -> str | None:
        """The input that this run built itself (under -n: would build), as people know it."""
        for node in self.target.children():
            if node.has_builder() and node.get_state() == SCons.Node.executed:
                return self._session.state.relative(node.get_abspath())
        return None

    def to_json(self) -> dict[str, Any]:
        """For `.trt/declared.json`."""
        values = value_fields(self.recipe, self.hardware.signature) if self.hardware else {}
        return {
            "name": self.name,
            "engine": self.label,
            "source": self.source,
            "hardware": self.hardware and self.hardware.name,
            "recipe": self.recipe.to_json(),
            "ingredients": values,
        }
