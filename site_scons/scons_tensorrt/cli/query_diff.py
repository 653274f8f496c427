"""`query diff`: how two engines, or two builds of one, differ."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..artifact.filename import SIDECAR_SUFFIX
from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..build.declared_engines import find_declared_engine
from ..build.engine_spec import made_from
from ..errors import EngineError
from ..files.digest_cache import is_sha256
from ..files.untrusted_json import listing, mapping
from ..recipe.options import DEFAULTS
from ..values import Value
from .common import engines_of_model, find_receipt, nearest_state_folder, print_json, say, state_folder

_RESULT = ("builder ", "worker ", "result ")


class _Side(Value):
    """One of the two builds that are compared. fields: its inputs, options and result, by name."""

    engine: str
    key: str
    built: str | None
    fields: Mapping[str, str]


def diff(arguments: argparse.Namespace) -> int:
    """Print how they differ: the exit status. Raises EngineError."""
    engines = [engine for path in arguments.paths for engine in _engines_at(path, arguments.state_dir)]
    if len(engines) > 2:
        listed = ", ".join(map(str, engines))
        raise EngineError(f"{len(engines)} engines: {listed}; name two of them, or one")
    if len(engines) == 2:
        sides = [_side(engine, arguments.state_dir) for engine in engines]
    else:
        sides = _last_two(engines[0], arguments.state_dir)
    result = all(side.built for side in sides)  # else only what they are made from is compared
    names = sorted(
        {name for s in sides for name in s.fields if result or not name.startswith(_RESULT)}, key=_order
    )
    values = {name: [side.fields.get(name) for side in sides] for name in names}
    different = {name: both for name, both in values.items() if len(set(both)) > 1}
    if arguments.json:
        builds = [{"engine": each.engine, "key": each.key, "built": each.built} for each in sides]
        rows = [{"name": name, "values": values[name]} for name in different]
        print_json({"engines": builds, "differences": rows})
        return 0
    if len(sides) == 1:
        say(f"{sides[0].engine}: one build is known, and no earlier one; name a second engine")
        return 0
    for side, sign in zip(sides, "-+"):
        built = f"built {side.built}" if side.built else "not built"
        say(f"{sign} {side.engine} ({built}, key {side.key[:12]})")
    for name, (first, second) in different.items():
        say(f"{name}: {_short(name, first)} → {_short(name, second)}")
    if not different:
        say("no difference")
    elif sides[0].key == sides[1].key:
        say("same key: what they are made from is the same")
    return 0


def _engines_at(path: str, named: str | None) -> list[Path]:
    return engines_of_model(path, named) or [Path(path.removesuffix(SIDECAR_SUFFIX))]


def _state(engine: Path, named: str | None) -> StateFolder:
    """The state folder, which has no receipts before the first build."""
    named = named or os.environ.get("TRT_STATE_DIR")
    return state_folder(engine, named or str(nearest_state_folder(engine, engine.absolute().parent)))


def _side(engine: Path, named: str | None) -> _Side:
    """The receipt of the file; else, the newest; else, what the last run declared. Raises EngineError."""
    state = _state(engine, named)
    known = list(state.receipts.of_file(engine.name))
    if known:
        return _of_receipt(engine, find_receipt(engine, known)[0] or known[0])
    declared = find_declared_engine(engine, state)
    if declared is None:
        raise EngineError(
            f"{engine}: no receipt in {state.root}, and not declared by the last run; check the path"
        )
    spec = declared.spec()
    inputs = made_from(spec, state)["inputs"]
    return _Side(str(engine), spec.key, None, _readable(spec.ingredients, inputs))


def _last_two(engine: Path, named: str | None) -> list[_Side]:
    """The build before the present one, if it is known, and the present one."""
    known = list(_state(engine, named).receipts.of_file(engine.name))
    if not known:
        return [_side(engine, named)]
    present = find_receipt(engine, known)[0] or known[0]
    before = [each for each in known if each != present][:1]
    return [_of_receipt(engine, each) for each in (*before, present)]


def _of_receipt(engine: Path, receipt: Receipt) -> _Side:
    details = receipt.details
    fields = _readable(receipt.ingredients, listing(details.get("inputs")))
    for name in ("builder", "worker"):
        fields.update({f"{name} {n}": str(v) for n, v in mapping(details.get(name)).items()})
    fields |= {"result sha256": receipt.sha256, "result size": f"{receipt.size} bytes"}
    started = details.get("started")
    return _Side(str(engine), receipt.key, started if isinstance(started, str) else None, fields)


def _readable(ingredients: Mapping[str, str], inputs: Sequence[Any]) -> dict[str, str]:
    """Ingredients, the digest of an ONNX with its path."""
    fields = dict(ingredients)
    onnx = next((each.get("name") for each in map(mapping, inputs) if each.get("role") == "onnx"), None)
    if onnx and "input onnx" in fields:
        fields["input onnx"] = f"{onnx} {fields['input onnx'][:12]}"
    return fields


def _order(name: str) -> tuple[int, str]:
    groups = ("input", "option", "hardware", "recipe", "builder", "worker", "result")
    group = name.partition(" ")[0]
    return groups.index(group) if group in groups else len(groups), name


def _short(name: str, value: str | None) -> str:
    group, _, option = name.partition(" ")
    default = str(DEFAULTS.get(option) or "unset") if group == "option" else "none"
    text = default if value is None else value
    return text[:12] if is_sha256(text) else text
