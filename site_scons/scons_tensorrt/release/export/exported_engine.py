"""An engine that is exported: verified, with what its receipt says of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ...artifact.filename import EngineFilename
from ...artifact.plan_header import read_head
from ...artifact.receipt import Receipt
from ...artifact.verify_pair import fault_of
from ...errors import EngineError, HandoffError, SidecarError
from ...files.digest_cache import sha256_file
from ...hardware.signature import HardwareSignature
from ...recipe.options import Recipe
from ...recipe.shapes import Profile
from ...values import Value
from .network_io import Network, read_network


class ExportedEngine(Value):
    """path, onnx: of the engine, and of the ONNX that it was compiled from; sha256, onnx_sha256: of their
    bytes; key: its recipe digest; product: "tensorrt" or "tensorrt_rtx"; version: of that; profiles: its
    optimization profiles, none if every input is static."""

    path: Path
    onnx: Path
    sha256: str
    onnx_sha256: str
    key: str
    product: str
    version: str
    profiles: tuple[Profile, ...]

    @property
    def name(self) -> EngineFilename:
        return EngineFilename.parse(self.path.name)

    @property
    def capability(self) -> str:
        """The compute capability as CUDA writes it, such as 8.7; of several architectures the lowest."""
        return f"{self.name.sm // 10}.{self.name.sm % 10}"

    def header(self) -> bytes:
        """The first 64 bytes of the engine. Raises OSError."""
        return read_head(self.path)[0]

    def network(self) -> Network:
        """Its inputs and outputs. Raises HandoffError, also if the ONNX changed meanwhile."""
        found = read_network(self.onnx, self.profiles)
        if sha256_file(self.onnx) != self.onnx_sha256:
            raise HandoffError(f"{self.onnx}: changed while its engine was exported; run again")
        return found


def verified_engine(
    path: Path, find_receipt: Callable[[Path], Receipt | None], onnx: Callable[[Receipt], Iterable[Path]]
) -> ExportedEngine:
    """The engine at `path`, checked against its sidecar, its receipt and its ONNX.

    find_receipt: the receipt of the engine's bytes; onnx: where its ONNX may be. Raises EngineError, one
    line with the cause and the next step.
    """
    EngineFilename.parse(path.name)
    try:
        fault = fault_of(path)
    except SidecarError as error:
        raise HandoffError(f"{error}; run `scons engines`, or restore it") from None
    if fault:
        raise HandoffError(f"{path}: {fault}; run `scons engines`, or restore it")
    receipt = find_receipt(path)
    if receipt is None:
        raise HandoffError(f"{path}: no receipt of these bytes; restore .trt/, or run `scons engines`")
    try:
        recipe = Recipe.from_json(path.name.partition("__")[0], receipt.details["recipe"], ())
        signature = HardwareSignature.from_json(receipt.details["hardware"]["signature"], f"{path}: receipt")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise HandoffError(
            f"{path}: its receipt is of another version ({type(error).__name__}: {error}); build it again"
        ) from None
    if _shapes(recipe.key_fields()) != _shapes(
        {n.removeprefix("option "): t for n, t in receipt.ingredients.items() if n.startswith("option ")}
    ):
        raise HandoffError(f"{path}: the shapes in its receipt do not match its key; build it again")
    wanted = receipt.ingredients.get("input onnx", "")
    return ExportedEngine(
        path,
        _same_onnx(path, wanted, onnx(receipt)),
        receipt.sha256,
        wanted,
        receipt.key,
        signature.product,
        signature.runtime_version,
        recipe.profiles,
    )


def _shapes(fields: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in fields.items() if name.startswith("shapes")}


def _same_onnx(engine: Path, wanted: str, places: Iterable[Path]) -> Path:
    """The first of `places` with the sha256 of the ONNX that the engine was compiled from."""
    tried = list(dict.fromkeys(places))
    for place in tried:
        try:
            if sha256_file(place) == wanted:
                return place
        except OSError:
            continue
    if not tried:
        raise HandoffError(f"{engine}: its receipt does not name its ONNX; run `scons engines`")
    why = "changed since" if any(map(os.path.lexists, tried)) else "is missing"
    raise HandoffError(
        f"{engine}: {os.path.relpath(tried[0])}, which it was compiled from, {why}; restore it, or run "
        "`scons engines`"
    )


def check_product(engine: ExportedEngine, who: str, instead: str) -> None:
    """Raise HandoffError unless the engine is one of TensorRT. who: the runtime that loads it; instead: the
    next step."""
    if engine.product != "tensorrt":
        raise HandoffError(
            f"{engine.path}: {who} loads engines of TensorRT, and this is one of TensorRT for RTX; {instead}"
        )


def at_least_one(engines: Iterable[ExportedEngine]) -> list[ExportedEngine]:
    """The engines, each once, sorted by path. Raises EngineError if there are none."""
    once = {os.path.realpath(each.path): each for each in engines}
    found = sorted(once.values(), key=lambda each: str(each.path))
    if not found:
        raise EngineError("no engines to export; run `scons engines`, or name an engine")
    return found
