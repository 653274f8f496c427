"""`explain`: how an engine was built, and what changed in its recipe since."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact.filename import SIDECAR_SUFFIX, EngineFilename
from ..artifact.receipt import Receipt
from ..build.declared_engines import DeclaredEngine, find_declared_engine
from ..build.kernel_pinning import DETAIL, with_kernels
from ..build.reuse_local_engine import ReusableEngines, cache_size_here
from ..errors import EngineError
from ..files.untrusted_json import listing, mapping
from ..recipe.key_ingredients import differences
from ..recipe.timing_cache_file import compare, layer_of, tactic_of
from .common import (
    add_command,
    add_json,
    add_state_dir,
    engines_of_model,
    find_receipt,
    print_json,
    say,
    state_folder,
)

if TYPE_CHECKING:
    from .common import Commands

FIGURES = ("error", "bound", "max_abs", "mean_abs", "cosine")  # printed per output
MOST_KERNELS = 20  # printed
Rows = Iterator[tuple[str, str]]


def add(commands: Commands) -> None:
    explain = add_command(
        commands,
        "explain",
        "show how an engine was built and what changed since",
        ("face", "face --json"),
    )
    explain.add_argument(
        "path", metavar="ENGINE|MODEL", help="engine file, or model name for all of its engines"
    )
    add_state_dir(explain)
    add_json(explain, "print the receipt and the changes as JSON")
    explain.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    named = engines_of_model(arguments.path, arguments.state_dir)
    engines = named or [Path(arguments.path.removesuffix(SIDECAR_SUFFIX))]
    explained = [_explain_one(engine, arguments) for engine in engines]
    if arguments.json and named:
        print_json({"engines": [data for _, data in explained]})
    elif arguments.json:
        print_json(explained[0][1])
    return max(status for status, _ in explained)


def _explain_one(engine: Path, arguments: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Print how an engine was built. The exit status, and the same for JSON."""
    name = EngineFilename.parse(engine.name)
    state = state_folder(engine, arguments.state_dir)
    known = list(state.receipts.of_file(engine.name))
    if not known:
        raise EngineError(f"{engine}: no receipt in {state.root}")
    receipt, digest, size = find_receipt(engine, known)
    found = find_declared_engine(engine, state)
    now = _present_state(found, receipt or known[0]) if found else None
    status = 0 if receipt else 1
    explained = {
        "engine": str(engine),
        "sha256": digest,
        "size": size,
        "known": receipt is not None,
        "receipt": json.loads((receipt or known[0]).dump()),
        "now": now,
    }
    if arguments.json:
        return status, explained
    say(f"{engine}: {name.model} for sm{name.sm}{'+' if name.plus else ''}, {name.precision}")
    if receipt is None:
        what = f"sha256 {digest[:12]}" if digest else f"{size} bytes"
        gone = "not downloaded (FETCH=)" if not known[0].downloaded else "the file is missing"
        fault = gone if size is None else f"no receipt matches the file ({what})"
        say(f"  {fault}; showing the newest receipt:")
    for title, rows in _sections(receipt or known[0]):
        _print(title, rows)
    _print("kernels", _kernels(receipt or known[0], known))
    if now:
        _print("changes", _present_rows(now))
    return status, explained


def _print(title: str, rows: Rows) -> None:
    """Print a heading and its rows; nothing if there are no rows."""
    for index, (label, value) in enumerate(rows):
        if not index:
            say(title)
        say(f"  {label:20}{value}" if label else f"  {value}")


def _sections(receipt: Receipt) -> Iterator[tuple[str, Rows]]:
    ingredients = receipt.ingredients
    yield "engine", _identity(receipt)
    yield "build", _build(receipt.details)
    yield "inputs", _inputs(receipt)
    yield "ONNX steps", _steps(receipt.details.get("made_by"))
    yield "accuracy", _accuracy(mapping(receipt.details.get("accuracy")))
    yield "options", _fields(ingredients, "option ")
    yield "hardware", _fields(ingredients, "hardware ")
    yield "recorded hardware", _recorded(receipt.details)


def _identity(receipt: Receipt) -> Rows:
    yield "sha256", receipt.sha256
    mb = f" ({receipt.size / 1e6:.1f} MB)" if receipt.size >= 100_000 else ""
    yield "size", f"{receipt.size} bytes{mb}"
    yield "key", receipt.key
    if "recipe version" in receipt.ingredients:
        yield "recipe version", receipt.ingredients["recipe version"]


def _build(details: Mapping[str, Any]) -> Rows:
    source = mapping(details.get("copied")).get("from")
    if isinstance(source, str):
        yield "copied from", f"{source}, which was built as follows"
    yield "started", f"{details.get('started', '?')}, took {details.get('duration_s', '?')} s"
    tools = [mapping(details.get(who)) for who in ("builder", "worker")]
    versions = [f"{name} {version}" for each in tools for name, version in sorted(each.items())]
    if versions:
        yield "built with", ", ".join(versions)
    peak = details.get("peak_memory_bytes")
    if isinstance(peak, int) and 0 <= peak < 1 << 62:
        yield "peak memory", f"{peak / (1 << 20):.0f} MiB"
    why = details.get("not_reproducible_because")
    yield "reproducible", "yes" if details.get("reproducible") else f"no: {why}"
    calibration = mapping(details.get("calibration"))
    if calibration:
        yield "calibration", _flat(calibration)
    if isinstance(details.get("log"), str):
        yield "log", f"{details['log']} in the state folder"


def _inputs(receipt: Receipt) -> Rows:
    for item in filter(None, map(mapping, listing(receipt.details.get("inputs")))):
        yield f"input {item.get('role')}", f"{item.get('name')} {item.get('sha256')}"


def _steps(steps: Any) -> Rows:
    for step in filter(None, map(mapping, listing(steps))):
        facts = _flat(mapping(step.get("facts")))
        made = f"{step.get('file')} from {step.get('source', '?')}"
        yield str(step.get("kind")), f"{made}: {facts}" if facts else made


def _accuracy(accuracy: Mapping[str, Any]) -> Rows:
    onnx = accuracy.get("onnx")
    for name, output in mapping(mapping(onnx).get("outputs")).items():
        figures = {k: v for k in FIGURES if (v := mapping(output).get(k)) is not None}
        yield f"output {name}", f"{mapping(onnx).get('metric')}: {_flat(figures)}"
    quantized = mapping(mapping(onnx).get("quantized"))
    if quantized:
        yield "in 8 bit", _flat({name: quantized.get(name) for name in ("layers", "of", "macs")})
    if isinstance(onnx, str):
        yield "ONNX", onnx
    yield from _corners("corners", mapping(onnx))
    if "engine" in accuracy:
        engine = accuracy["engine"]
        told = {k: v for k, v in engine.items() if k != "corners"} if isinstance(engine, dict) else engine
        yield "engine", str(told)
        yield from _corners("engine's corners", mapping(engine))


def _corners(label: str, facts: Mapping[str, Any]) -> Rows:
    corners = mapping(facts.get("corners"))
    for row in map(mapping, listing(corners.get("table"))):
        told = [row.get("shapes"), f"{row.get('runs')} runs", row.get("rows"), row.get("note")]
        yield label, f"{row.get('corner')}: {'; '.join(str(each) for each in told if each)}"
    if corners:
        yield label, f"judged: {corners.get('judged')}; seed {corners.get('seed')}"


def _kernels(receipt: Receipt, known: list[Receipt]) -> Rows:
    """The kernels of timing_cache=, and which differ from those of the build before. known: all receipts of
    the filename, newest first."""
    found = mapping(receipt.details.get(DETAIL))
    if not found:
        return
    yield "pinned", f"{len(found)}, by timing_cache"
    older = known[known.index(receipt) + 1 :] if receipt in known else []
    maps = ((each, mapping(each.details.get(DETAIL))) for each in older)
    last = next(((each, kernels) for each, kernels in maps if kernels), None)
    if last is None:
        return
    before = last[1]
    changes = compare(before, found)
    yield "since", f"the build of {last[0].details.get('started', '?')}: {changes.describe(len(found))}"
    for key in changes.changed[:MOST_KERNELS]:
        now = str(found[key])
        yield "", f"{layer_of(key, now)}: {tactic_of(str(before[key]))} → {tactic_of(now)}"


def _fields(ingredients: Mapping[str, str], group: str) -> Rows:
    for name, text in ingredients.items():
        if name.startswith(group):
            yield name.removeprefix(group), text


def _recorded(details: Mapping[str, Any]) -> Rows:
    hardware = mapping(details.get("hardware"))
    if hardware.get("name"):
        yield "name", str(hardware["name"])
    for name, value in sorted(mapping(mapping(hardware.get("signature")).get("recorded")).items()):
        yield name, str(value)


def _flat(value: Any) -> str:
    """On one line: `samples 8, quantized (Conv 83)`. None is left out."""
    if isinstance(value, dict):
        parts = []
        for name, each in value.items():
            text = _flat(each)
            if text:
                parts.append(f"{name} ({text})" if isinstance(each, dict) else f"{name} {text}")
        return ", ".join(parts)
    if isinstance(value, list):
        return " ".join(map(_flat, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def _present_state(found: DeclaredEngine, receipt: Receipt) -> dict[str, Any]:
    """Whether the engine is up to date, and how its recipe differs from the receipt."""
    outdated = found.declaration.outdated()
    now: dict[str, Any] = {"code": None, "reason": None, "changes": None, "outdated": outdated}
    now["reuses"] = None
    try:
        spec = found.spec()
        changes = differences(receipt.ingredients, spec.ingredients, found.source)
        now["changes"] = with_kernels(changes, receipt, spec)
    except EngineError as error:
        now.update(code=type(error).__name__, reason=str(error))
    try:
        up_to_date = found.up_to_date()
        now.update(code=up_to_date.code, reason=up_to_date.reason)
        if not up_to_date.reusable:
            state, digest_cache = found.declaration.state, found.declaration.digest_cache
            with contextlib.suppress(EngineError):  # an input may be missing, and be made first
                kept = ReusableEngines(state, digest_cache, cache_size_here()).find(
                    found.spec(), up_to_date.code
                )
                now["reuses"] = kept and kept.origin
    except EngineError as error:
        now.update(code=type(error).__name__, reason=str(error))
    return now


def _present_rows(now: Mapping[str, Any]) -> Rows:
    if now["outdated"]:
        yield "", now["outdated"]
    changes = now["changes"]
    for change in changes or ():
        yield "", change
    if changes == []:
        yield "", "none"
    if now["code"] != "current" and now["reason"] not in ("; ".join(changes or ()), ""):
        yield "", f"{now['code']}: {now['reason']}"
    if now["reuses"]:
        yield "", f"the next build reuses an engine ({now['reuses']})"
