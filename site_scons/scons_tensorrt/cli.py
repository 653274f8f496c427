"""`python -m scons_tensorrt probe | name parse FILE | verify PATH... | explain PATH | reproduce PATH`.

Needs the standard library alone, so that it runs on a device. Exit status: 0; 1 when an
engine is not what it should be or the question cannot be answered; 2 for a wrong call.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from . import __version__
from .compile.wanted import Wanted
from .errors import EngineError, HardwareError, one_line
from .identity.filename import SIDECAR_SUFFIX, SUFFIX, EngineFilename
from .identity.hardware import Hardware, resolve
from .identity.host import Host
from .identity.reading import read_small
from .identity.runtime import Interpreter
from .identity.signature import HardwareSignature
from .integrity.memo import sha256_file
from .integrity.receipt import Receipt
from .integrity.state import DEFAULT, StateFolder
from .integrity.verified import fault_of
from .recipe.key import differences, input_name
from .recipe.options import Recipe

LARGEST = 64 << 20  # bytes of declared.json


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except EngineError as error:
        _say(f"{type(error).__name__}: {error}", sys.stderr)
    except BrokenPipeError:  # the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}", sys.stderr)
    return 1


def _say(text: str, stream: TextIO | None = None) -> None:
    """Print one line, whatever the terminal's encoding and whoever chose the names in it."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(one_line(text).encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scons_tensorrt", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    probe = commands.add_parser("probe", help="what hardware engines would be made for here")
    probe.add_argument("--hardware", metavar="NAME", help="as after HARDWARE=")
    probe.add_argument("--python", metavar="PATH", help="the interpreter that has TensorRT")
    probe.add_argument("--root", metavar="DIR", help="a root file system: its JetPack and TensorRT")
    probe.add_argument("--jetpack", metavar="X.Y", help="as after JETPACK=")
    probe.add_argument("--backend", metavar="NAME", help="as after BACKEND=")
    probe.add_argument("--json", action="store_true", help="write what HARDWARE= reads")
    probe.set_defaults(run=_probe)

    name = commands.add_parser("name", help="engine filenames")
    parse = name.add_subparsers(required=True, metavar="parse").add_parser("parse")
    parse.add_argument("file")
    parse.add_argument("--json", action="store_true")
    parse.set_defaults(run=_name_parse)

    verify = commands.add_parser("verify", help="are these engines what their sidecars say")
    verify.add_argument("path", nargs="+", help="an engine, or a folder of engines")
    verify.set_defaults(run=_verify)

    explain = commands.add_parser("explain", help="what an engine was made from")
    explain.add_argument("path", help="an engine")
    explain.add_argument("--state-dir", metavar="DIR", help=f"default: the nearest {DEFAULT} above")
    explain.set_defaults(run=_explain)

    reproduce = commands.add_parser("reproduce", help="compile again: are the bytes the same")
    reproduce.add_argument("path", nargs="+", help="an engine, or a folder of engines")
    reproduce.add_argument("--state-dir", metavar="DIR", help=f"default: the nearest {DEFAULT} above")
    reproduce.add_argument("--python", metavar="PATH", help="the interpreter that has TensorRT")
    reproduce.set_defaults(run=_reproduce)
    return parser


def _probe(arguments: argparse.Namespace) -> int:
    interpreter = Interpreter(arguments.python or os.environ.get("TRT_PYTHON"))
    named = arguments.hardware or os.environ.get("TRT_HARDWARE")
    backend = arguments.backend or os.environ.get("TRT_BACKEND")
    if arguments.root:
        hardware = _of_root(arguments, named, interpreter)
    else:
        hardware = resolve(named, Path.cwd(), interpreter.runtime, backend, arguments.jetpack)
    if arguments.json:
        print(json.dumps(hardware.signature.to_json(), indent=2, sort_keys=True))
        return 0
    for label, value in _hardware_rows(hardware):
        _say(f"{label:20}{value}")
    return 0


def _of_root(arguments: argparse.Namespace, named: str | None, interpreter: Interpreter) -> Hardware:
    """A board by its hardware file, with JetPack and TensorRT of the image it will run."""
    if not named:
        raise HardwareError("--root tells JetPack and TensorRT, not the GPU: name --hardware too")
    host = Host(Path(arguments.root).absolute())
    packaged, jetpack = host.tensorrt(), host.jetpack(arguments.jetpack)
    if not packaged or not jetpack:
        what = "TensorRT package" if jetpack else "L4T release"
        raise HardwareError(f"{arguments.root}: no {what} in it (/etc, /var/lib/dpkg/status)")
    board = resolve(named, Path.cwd(), interpreter.runtime).signature.to_json()
    if board["product"] != "tensorrt":
        raise HardwareError(f"--root tells of TensorRT, and {named} is for {board['product']}")
    data = {**board, "runtime_version": packaged[0], "jetpack": jetpack}
    signature = HardwareSignature.from_json(data, arguments.root)
    return Hardware(named, signature, f"{named} with the image in {arguments.root}")


def _hardware_rows(hardware: Hardware) -> Iterator[tuple[str, str]]:
    signature = hardware.signature
    yield "hardware", f"{hardware.name or hardware.title}: {signature.describe()}"
    yield "why", hardware.why
    yield from signature.key_fields().items()
    yield from sorted(signature.recorded.items())
    yield "in filenames", signature.filename("model", "fp32").build()


def _name_parse(arguments: argparse.Namespace) -> int:
    name = EngineFilename.parse(os.path.basename(arguments.file))
    fields: dict[str, Any] = {
        "model": name.model,
        "sm": name.sm,
        "plus": name.plus,
        "platform": name.platform,
        "runtime": name.runtime,
        "precision": name.precision,
    }
    if arguments.json:
        print(json.dumps(fields))
    else:
        for field, value in fields.items():
            print(f"{field:12}{str(value).lower() if isinstance(value, bool) else value}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    worst = 0
    for path in _engines(arguments.path):
        fault = _fault(path)
        _say(f"FAILED {path}: {fault}" if fault else f"OK {path}")
        worst |= fault is not None
    return worst


def _engines(paths: list[str]) -> Iterator[str]:
    """The engines named; a folder stands for those below it, a sidecar for its engine."""
    for path in paths:
        if not os.path.isdir(path):
            yield path.removesuffix(SIDECAR_SUFFIX)
            continue
        found = {
            str(file).removesuffix(SIDECAR_SUFFIX)
            for pattern in (f"*{SUFFIX}", f"*{SUFFIX}{SIDECAR_SUFFIX}")
            for file in Path(path).rglob(pattern)
        }
        if not found:
            raise EngineError(f"{path}: no engine in this folder")
        yield from sorted(found)


def _fault(path: str) -> str | None:
    try:
        EngineFilename.parse(os.path.basename(path))
        return fault_of(path)
    except EngineError as error:
        return f"{type(error).__name__}: {error}"


def _explain(arguments: argparse.Namespace) -> int:
    engine = Path(arguments.path.removesuffix(SIDECAR_SUFFIX))
    name = EngineFilename.parse(engine.name)
    state = _state_folder(engine, arguments.state_dir)
    known = list(state.receipts.all_of(engine.name))
    if not known:
        raise EngineError(f"{engine}: no receipt in {state.root} says what it was made from")
    digest = sha256_file(engine, follow=False) if os.path.lexists(engine) else None
    receipt = next((r for r in known if r.sha256 == digest), None)
    _say(f"{engine}: {name.model} for sm{name.sm}{'+' if name.plus else ''}, {name.precision}")
    if receipt is None:
        what = "missing" if digest is None else f"of bytes that no receipt knows ({digest[:12]})"
        _say(f"  the file is {what}; the newest receipt tells of one that is gone:")
        receipt = known[0]
    for label, value in _receipt_rows(receipt):
        _say(f"  {label:20}{value}")
    changes = _against_declared(engine, receipt, state)
    for change in changes or ():
        _say(f"  now wanted          {change}")
    if changes == []:
        plugins = any(name.startswith(input_name("plugin")) for name in receipt.ingredients)
        _say(f"  now wanted          as it was made{' (plugins were not looked at)' * plugins}")
    return 0 if receipt.sha256 == digest else 1


def _receipt_rows(receipt: Receipt) -> Iterator[tuple[str, str]]:
    details = receipt.details
    yield "sha256", receipt.sha256
    yield "size", f"{receipt.size} bytes"
    yield "key", receipt.key
    yield "made", f"{details.get('started', '?')} in {details.get('duration_s', '?')} s"
    worker = details.get("worker")
    if isinstance(worker, dict):
        yield "by", ", ".join(f"{name} {version}" for name, version in sorted(worker.items()))
    why = details.get("not_reproducible_because")
    yield "reproducible", "yes" if details.get("reproducible") else f"no: {why}"
    inputs = details.get("inputs")
    for item in inputs if isinstance(inputs, list) else ():
        if isinstance(item, dict):
            yield f"input {item.get('role')}", f"{item.get('name')} {item.get('sha256')}"
    for name, text in receipt.ingredients.items():
        if not name.startswith("input "):
            yield name.removeprefix("option ").removeprefix("hardware "), text


def _state_folder(engine: Path, named: str | None) -> StateFolder:
    """The state folder that knows an engine: the one named, or the nearest above it; of the tree
    that declares the engine, of several that share the folder."""
    folder = engine.absolute().parent
    if named:
        return _of_tree(engine, Path(os.path.abspath(named)))
    for top in (folder, *folder.parents):
        if (top / DEFAULT / "receipts").is_dir():
            return _of_tree(engine, top / DEFAULT)
    raise EngineError(f"{engine}: no {DEFAULT}/ above it; name one with --state-dir")


def _of_tree(engine: Path, root: Path) -> StateFolder:
    for file in (root / "declared.json", *sorted((root / "declared").glob("*.json"))):
        state = StateFolder(root, Path(os.path.normpath(root / _read_declared(file)[0])))
        if state.declared == file and _declared(engine, state) is not None:
            return state
    return StateFolder(root, root.parent)


def _read_declared(file: Path) -> tuple[str, list[Any]]:
    """The tree, as seen from the state folder, and its engines; none where the file is damaged."""
    try:
        data = json.loads(read_small(file, LARGEST))
        top, engines = data.get("top", ".."), data["engines"]
        if isinstance(top, str) and "\0" not in top and isinstance(engines, list):
            return top, engines
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return "..", []


def _declared(engine: Path, state: StateFolder) -> dict[str, Any] | None:
    """What the last run declared of this engine; its ingredients are texts."""
    label = state.relative(engine)
    for item in _read_declared(state.declared)[1]:
        if isinstance(item, dict) and item.get("engine") == label:
            fields = item.get("ingredients")
            sound = isinstance(fields, dict) and all(isinstance(text, str) for text in fields.values())
            return item if sound else None
    return None


def _against_declared(engine: Path, receipt: Receipt, state: StateFolder) -> list[str] | None:
    """How the last run's declaration differs from a receipt; None where nothing declares it."""
    found = _declared(engine, state)
    if found is None:
        return None
    wanted, source = dict(found["ingredients"]), str(found.get("source"))
    onnx = state.top / str(found.get("onnx", source))
    wanted.update({k: v for k, v in receipt.ingredients.items() if k.startswith("input ")})
    samples = state.top / str(found.get("samples"))
    for name, path in _input_files(receipt, onnx, samples):
        wanted[name] = sha256_file(path) if path.is_file() else "missing"
    return differences(receipt.ingredients, wanted, source)


def _reproduce(arguments: argparse.Namespace) -> int:
    worst = 0
    for path in _engines(arguments.path):
        try:
            fault = _differs(Path(path), arguments)
        except EngineError as error:
            fault = f"{type(error).__name__}: {error}"
        _say(f"DIFFERENT {path}: {fault}" if fault else f"EQUAL {path}")
        worst |= fault is not None
    return worst


def _differs(engine: Path, arguments: argparse.Namespace) -> str | None:
    """How an engine's bytes differ from those that its recipe gives now. Raises EngineError."""
    from .compile.again import compile_again

    digest = sha256_file(engine, follow=False)
    state = _state_folder(engine, arguments.state_dir)
    receipt = next((r for r in state.receipts.all_of(engine.name) if r.sha256 == digest), None)
    if receipt is None:
        return "no receipt knows these bytes; build it again"
    wanted = _wanted_of(engine, receipt, state)
    for name, path in wanted.inputs().items():
        if not path.is_file() or sha256_file(path) != receipt.ingredients.get(name):
            return f"{path} is not what it was made from; build it again"
    interpreter = Interpreter(arguments.python or os.environ.get("TRT_PYTHON"))
    made = compile_again(wanted, interpreter, state.log(engine).with_suffix(".again.log"))
    if made.sha256 == digest:
        return None
    why = made.not_reproducible_because or receipt.details.get("not_reproducible_because")
    moved = f"sha256 {digest[:12]}, and now {made.sha256[:12]}"
    return f"{moved} ({why})" if why else moved


def _wanted_of(engine: Path, receipt: Receipt, state: StateFolder) -> Wanted:
    """The engine as its receipt says it was wanted, its files where the last run had them."""
    found = _declared(engine, state)
    if found is None:
        raise EngineError("the last run did not declare it, so where its inputs are is not known")
    try:
        hardware = receipt.details["hardware"]
        signature = HardwareSignature.from_json(hardware["signature"], engine.name)
        plugins = [(state.top / path).resolve() for path in found.get("plugins", ())]
        recipe = Recipe.from_json(str(found["name"]), receipt.details["recipe"], plugins)
        onnx = Path(os.path.normpath(state.top / found["onnx"]))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise EngineError(f"its receipt is of another version ({error!r}); build it again") from None
    data = input_name("data") + " "
    places = [n.removeprefix(data) for n in receipt.ingredients if n.startswith(data)]
    external = {place: onnx.parent / place for place in places}
    kind = Hardware(hardware.get("name"), signature, "its receipt")
    samples = state.top / str(found["samples"]) if found.get("samples") else None
    return Wanted(
        *(engine, recipe, kind, receipt.ingredients, onnx, str(found["source"]), external),
        samples=samples,
    )


def _input_files(receipt: Receipt, onnx: Path, samples: Path) -> Iterator[tuple[str, Path]]:
    """The ONNX, its external data and a calibrator's samples; plugins are not looked at."""
    for name in receipt.ingredients:
        if name == input_name("onnx"):
            yield name, onnx
        elif name.startswith(input_name("data") + " "):
            yield name, onnx.parent / name.removeprefix(input_name("data") + " ")
        elif name.startswith(input_name("samples") + " "):
            yield name, samples
