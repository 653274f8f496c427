"""The prepare step of an ONNX that TensorRT would refuse.

Whether an ONNX that is known from an earlier run needs it is decided while the graph is read. Another one,
and one that the build makes, is looked at when SCons gets there: its prepared file is declared, but made only
if it is needed. The scanner adds a needed file to what is made from it (builders.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..artifact.cache_key import make_key
from ..errors import RecipeError
from ..recipe.onnx.summary import OnnxSummary
from ..recipe.preparation import find_reasons, needed_for, prepare_step
from .declare_onnx_steps import declare, sample_nodes
from .engine_target import EngineTarget
from .nodes import real_place
from .onnx_target import OnnxTarget, SampleNodes
from .run_files import RunFiles
from .session import Session


class PreparedTarget(OnnxTarget):
    """owner: the engine; original: the node of the ONNX; always: see `target.Prepared`."""

    def __init__(
        self, files: RunFiles, owner: EngineTarget, path: Path, samples: SampleNodes | None, always: bool
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

    def _summary(self, read: bool = True) -> OnnxSummary | None:
        """The summary of the original. None if it has yet to be made, or what uses it reports the error."""
        inputs, place = self._files.inputs, real_place(self.original)
        try:
            return inputs.summary(place) if read else inputs.known_summary(place)
        except (RecipeError, OSError):
            return None

    @property
    def needed_for(self) -> str:
        return needed_for(self.options, self._summary())

    def is_needed(self, read: bool = True) -> bool:
        if self.always:
            return True
        summary = self._summary(read)
        if summary is None:
            return False
        if self._known[0] is not summary:
            self._known = summary, bool(find_reasons(self._wanted, self._profiles, summary))
        return self._known[1]

    def instead_of(self, node: Any, read: bool = True) -> Any:
        """The node to use for that of an ONNX."""
        return self.target if node is self.original and self.is_needed(read) else node


def declare_prepared(
    env: Any, session: Session, owner: EngineTarget, summary: OnnxSummary | None
) -> PreparedTarget | None:
    """The prepare step of the owner's ONNX, None if it needs none. summary: of the ONNX, None if it is
    not known yet. Engines of one model share the file unless their shapes, values or samples differ. Raises
    RecipeError or UserError."""
    recipe = owner.recipe
    if summary and not find_reasons(recipe.preparation, recipe.profiles, summary):
        return None
    gate, calibration, samples = recipe.accuracy, recipe.conversion.calibration, None
    if gate and gate.samples:
        samples = sample_nodes(env, session, gate.samples, "accuracy inputs")
    elif calibration:
        samples = sample_nodes(env, session, calibration.samples, "calibration")
    always = summary is not None or bool(recipe.preparation.freeze)
    path = session.state.onnx / f"{owner.name}.prepared.onnx"
    target = PreparedTarget(session.files, owner, path, samples, always)
    other = session.derived.get(path)
    if other is not None and not other.same_as(target):
        path = path.with_name(f"{owner.name}.prepared-{target.digest}.onnx")
        target = PreparedTarget(session.files, owner, path, samples, always)
    found = declare(env, target, session)
    assert isinstance(found, PreparedTarget)
    return found
