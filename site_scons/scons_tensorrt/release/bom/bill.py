"""What a bill of materials contains: parts, steps and what needs what."""

from __future__ import annotations

from collections.abc import Mapping

from ...recipe.model_card import ModelCard
from ...values import Value

ENGINE, MODEL, ONNX, DATA, PLUGIN, SAMPLES, RECORDED, FILE = (
    *("engine", "model", "onnx", "data", "plugin", "samples", "recorded", "file"),
)


class Part(Value):
    """One file. ref: unique in the bill; kind: see above, MODEL for an ONNX that no step made; name: without
    absolute paths; sha512: None if unknown; size: in bytes, None if unknown; listed: the sha256 is that of a
    list of files with the sha256 of each; facts: more about it, as text; metrics: (type, value)."""

    ref: str
    kind: str
    name: str
    sha256: str
    sha512: str | None = None
    size: int | None = None
    listed: bool = False
    card: ModelCard | None = None
    version: str = ""
    facts: Mapping[str, str] = {}
    metrics: tuple[tuple[str, str], ...] = ()


class Tool(Value):
    """A program that made a part, or that an engine needs to run."""

    name: str
    version: str

    @property
    def ref(self) -> str:
        return f"tool:{self.name}@{self.version}"


class Made(Value):
    """One step. key: the recipe digest; inputs, outputs: refs of parts; parameters: of the recipe."""

    kind: str
    key: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tools: tuple[Tool, ...]
    parameters: Mapping[str, str]


class Bom(Value):
    """name: of the manifest; sha256, sha512: of its bytes; parts: by ref; steps: each after those that made
    its inputs; needs: refs by the ref that needs them; runtimes: by the ref of an engine; created: seconds
    since the epoch, None to leave it out."""

    name: str
    sha256: str
    sha512: str
    hardware: str
    parts: Mapping[str, Part]
    steps: tuple[Made, ...]
    needs: Mapping[str, tuple[str, ...]]
    runtimes: Mapping[str, Tool]
    created: int | None
    writer: Tool

    @property
    def version(self) -> str:
        return self.sha256[:12]
