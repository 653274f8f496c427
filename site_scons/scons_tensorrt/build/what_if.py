"""What would change if the declared engines were for another version of TensorRT, or for other hardware.

From what the last run declared, without a SConstruct, a TensorRT or a GPU. The key of an engine is exact
where the ONNX that is compiled stays the same and the version has all four parts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

from ..artifact.cache_key import make_key
from ..artifact.filename import EngineFilename
from ..errors import EngineError, HardwareError
from ..hardware.choose_hardware import resolve
from ..hardware.runtime import Runtime
from ..hardware.signature import PRODUCTS, HardwareSignature
from ..recipe.conversion import faults, next_step, strongly_typed
from ..recipe.key_ingredients import differences, value_fields
from ..recipe.onnx.summary import OnnxSummary
from ..recipe.options import Recipe
from ..recipe.options_by_product import unsupported_options
from ..recipe.options_by_version import absent_options, missing_options
from ..values import Value
from .declared_engines import Declaration, DeclaredEngine

_RUNTIME = re.compile(r"(trt|rtx)?([0-9]{1,9}(?:\.[0-9]{1,9}){1,3})")


_LIKE = {"trt": "10.16", "rtx": "1.8"}  # of messages


class WhatIf(Value):
    """What would happen to an engine. outcome: "same", "reuse" (an earlier build has a receipt of its key),
    "rebuild" or "refuse"; filename: that it would have; reasons: what changes, or why it would be refused;
    notes: what is not known, or also changes; before, after: its hardware signature."""

    engine: DeclaredEngine
    outcome: str
    filename: str | None
    reasons: list[str]
    notes: list[str]
    before: HardwareSignature | None = None
    after: HardwareSignature | None = None


class WantedRuntime(Value):
    """A version of TensorRT, such as 10.16, and its product."""

    product: str
    version: str

    @classmethod
    def parse(cls, text: str) -> WantedRuntime:
        """From 10.16 or trt10.16 (TensorRT), or rtx1.8 (TensorRT for RTX). Raises ValueError."""
        found = _RUNTIME.fullmatch(text)
        if not found:
            raise ValueError(
                f"{text!r}: write a version of TensorRT such as 10.16, or rtx1.8 for TensorRT for RTX"
            )
        products = {short: product for product, short in PRODUCTS.items()}
        return cls(products[found[1] or "trt"], found[2])

    def of(self, signature: HardwareSignature) -> HardwareSignature:
        """The signature with this version. 10.3 is also 10.3.0.30, if the signature has that."""
        same = f"{signature.runtime_version}.".startswith(f"{self.version}.")
        if signature.product != self.product or same:
            return signature
        return signature._replace(runtime_version=self.version)


def what_if(tree: Declaration, hardware: str | None, runtime: WantedRuntime | None) -> Iterator[WhatIf]:
    """The engines of a tree, each once for the wanted hardware. Raises HardwareError."""
    signature = None
    if hardware:
        signature = resolve(hardware, tree.state.top, _declared_runtime(tree)).signature
    elif runtime and all(each.product != runtime.product for each in signatures(tree)):
        short, other = (PRODUCTS[p] for p in sorted(PRODUCTS, key=lambda each: each != runtime.product))
        raise HardwareError(
            f"--runtime {short}{runtime.version}: no engine is declared for {runtime.product}; name a "
            f"version such as --runtime {other}{_LIKE[other]}, or --hardware too"
        )
    seen = set()
    for engine in tree.engines:
        found = _of_engine(engine, signature, runtime)
        once = engine.name, engine.source, found.filename
        if not (hardware and found.filename and once in seen):  # declared for several kinds of hardware
            seen.add(once)
            yield found


def option_changes(found: list[WhatIf]) -> dict[str, list[str]]:
    """Builder options by what the other version changes: "available" there and not now, "unavailable" there,
    or "unknown"."""
    changes: dict[str, set[str]] = {"available": set(), "unavailable": set(), "unknown": set()}
    for before, after in {(each.before, each.after) for each in found}:
        if before and after:
            now, then = ({each.option: each.sure for each in absent_options(s)} for s in (before, after))
            changes["available"] |= now.keys() - then.keys()
            for option in then.keys() - now.keys():
                changes["unavailable" if then[option] else "unknown"].add(option)
    return {name: sorted(options) for name, options in changes.items()}


def signatures(tree: Declaration) -> list[HardwareSignature]:
    """Those that the engines of a tree are declared for."""
    listed = tree.data.get("signatures")
    return [tree.signature(index) for index in range(len(listed) if isinstance(listed, list) else 0)]


def _declared_runtime(tree: Declaration) -> Callable[[str], Runtime]:
    """The runtime of a product that the last run declared engines for: nothing needs to be installed."""

    def runtime(product: str) -> Runtime:
        for each in signatures(tree):
            if each.product == product:
                return Runtime(product, each.runtime_version, each.cuda, "", "")
        raise HardwareError(
            f"no engine is declared for {product}, so its version is not known; name a hardware file with "
            "runtime_version and cuda"
        )

    return runtime


def _of_engine(
    engine: DeclaredEngine, signature: HardwareSignature | None, runtime: WantedRuntime | None
) -> WhatIf:
    try:
        recipe, old = engine.recipe(), engine.signature()
        new = signature or old
        new = runtime.of(new) if runtime else new
        filename = EngineFilename.of(new, recipe.model, recipe.precision, recipe.ampere_plus).build()
        spec = None if _to_be_made(engine) else engine.spec()
    except EngineError as error:
        return WhatIf(engine, "refuse", None, [str(error)], [])
    if new == old:
        return WhatIf(engine, "same", filename, [], [])
    strong = strongly_typed(new)
    summary = spec and engine.declaration.inputs.summary_of(spec.onnx, spec.source)
    refused = unsupported_options(recipe, new) + faults(recipe.precision, recipe.conversion, strong, summary)
    missing = missing_options(recipe, new)
    refused += [f"{each.option}: {each.why}; leave it out" for each in missing if each.sure]
    notes = [f"{each.option}: {each.why}" for each in missing if not each.sure]
    if refused:
        return WhatIf(engine, "refuse", filename, refused, notes, old, new)
    notes += _other_steps(engine, recipe, strong, summary)
    inputs = {n: t for n, t in spec.ingredients.items() if n.startswith("input ")} if spec else {}
    now, then = ({**inputs, **value_fields(recipe, each)} for each in (old, new))
    exact = spec and not notes
    known = exact and engine.declaration.state.receipts.of_key(filename, make_key(filename, then))
    outcome = "reuse" if known else "rebuild"
    return WhatIf(engine, outcome, filename, differences(now, then, engine.source), notes, old, new)


def _to_be_made(engine: DeclaredEngine) -> bool:
    """Whether an ONNX step has yet to make one of its inputs."""
    return any(not os.path.lexists(engine.declaration.place(step.label)) for step in engine.steps())


def _other_steps(
    engine: DeclaredEngine, recipe: Recipe, strong: bool, summary: OnnxSummary | None
) -> Iterator[str]:
    """How the ONNX that is compiled would change. strong: whether the runtime is strongly typed; summary:
    None if the ONNX has yet to be made."""
    if summary and next_step(recipe.precision, recipe.conversion, strong, summary):
        yield f"its ONNX would be converted to {recipe.precision} first"
    elif not strong and any(step.item.get("kind") == "precision" for step in engine.steps()):
        yield f"{engine.original.name} would be compiled without a conversion"
