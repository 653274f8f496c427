"""The prepare step of an ONNX that TensorRT would refuse.

What a source file needs is known while the graph is read. An ONNX that the build makes is looked at when it
is there: its prepared file is declared, but made only if it is needed; the scanner then adds it to the
dependencies of what is made from it (builders.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..artifact.receipt import make_key
from ..errors import RecipeError
from ..recipe.onnx.summary import OnnxSummary
from ..recipe.preparation import find_reasons, needed_for, prepare_step
from .nodes import real_place
from .onnx_target import OnnxTarget, SampleNodes
from .run_files import RunFiles


class PreparedTarget(OnnxTarget):
    """owner: the engine; original: the node of the ONNX; always: see `target.Prepared`."""

    def __init__(
        self, files: RunFiles, owner: Any, path: Path, samples: SampleNodes | None, always: bool
    ) -> None:
        recipe = owner.recipe
        step = prepare_step(recipe.preparation, recipe.profiles)
        onnx = {"onnx": owner.original}
        super().__init__(files, owner, path, step.kind, step.options, onnx, samples)
        self.original, self.always = owner.original, always
        self._wanted, self._profiles = recipe.preparation, recipe.profiles
        self._known: tuple[OnnxSummary | None, bool] = None, False

    @property
    def digest(self) -> str:
        """A short digest of what it is made by, for the names of two files of one model."""
        samples = self.samples.label if self.samples else ""
        return make_key("", {**self.fields, "source": self.source, "samples": samples})[:8]

    @property
    def apart(self) -> str:
        """What tells its name from that of the other prepared file of the model."""
        return self.path.name.removeprefix(f"{self.name}.prepared").removesuffix(".onnx")

    def _summary(self) -> OnnxSummary | None:
        """The summary of the original. None if it has yet to be made, or what uses it reports the error."""
        try:
            return self._files.inputs.summary(real_place(self.original))
        except (RecipeError, OSError):
            return None

    @property
    def needed_for(self) -> str:
        return needed_for(self.options, self._summary())

    def is_needed(self) -> bool:
        if self.always:
            return True
        summary = self._summary()
        if summary is None:
            return False
        if self._known[0] is not summary:
            self._known = summary, bool(find_reasons(self._wanted, self._profiles, summary))
        return self._known[1]

    def instead_of(self, node: Any) -> Any:
        """The node to use for that of an ONNX."""
        return self.target if node is self.original and self.is_needed() else node
