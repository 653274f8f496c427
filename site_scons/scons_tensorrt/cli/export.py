"""`export epcontext|triton|deepstream`: engines in the formats of ONNX Runtime, Triton and DeepStream."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..build.declared_engines import declarations, find_declared_engine
from ..errors import HandoffError, plural
from .common import (
    add_command,
    add_json,
    add_state_dir,
    engines,
    engines_of_model,
    find_receipt,
    nearest_state_folder,
    print_json,
    say,
    state_folder,
    writing,
)

if TYPE_CHECKING:
    from ..release.export.exported_engine import ExportedEngine
    from .common import Commands

Write = Callable[[Path, Sequence["ExportedEngine"]], list[Path]]


def add(commands: Commands) -> None:
    export = add_command(
        commands,
        "export",
        "write engines for ONNX Runtime, Triton or DeepStream",
        ("epcontext out", "epcontext package --package face"),
        "Write engines in the formats of other runtimes. Each engine is first checked against its "
        "sidecar, its receipt and its ONNX.",
    )
    jobs = export.add_subparsers(required=True, metavar="FORMAT")
    for add_format in (_add_epcontext, _add_triton, _add_deepstream):
        job = add_format(jobs)
        job.add_argument("folder", metavar="DIR", help="folder to write, created if it is missing")
        job.add_argument(
            "models",  # this name lets options stand between them
            nargs="*",
            default=[],
            metavar="ENGINE",
            help="engine, folder of engines, or name of a model (default: all that the last run declared)",
        )
        add_state_dir(job)
        add_json(job)


def _add_epcontext(jobs: Commands) -> argparse.ArgumentParser:
    context = add_command(
        jobs,
        "epcontext",
        "ONNX Runtime: an ONNX with an EPContext node around each engine",
        ("out face --embed", "package --package --json"),
        "Write an ONNX with an EPContext node around each engine, and the engine beside it, for ONNX "
        "Runtime's provider of TensorRT for RTX (or of TensorRT).",
    )
    context.add_argument("--embed", action="store_true", help="put the engine into the ONNX")
    context.add_argument(
        "--package", action="store_true", help="write a model package, with a variant for each hardware"
    )
    context.set_defaults(run=lambda arguments: _run(arguments, _context(arguments)))
    return context


def _add_triton(jobs: Commands) -> argparse.ArgumentParser:
    triton = add_command(
        jobs,
        "triton",
        "Triton: a model repository with config.pbtxt and model.plan",
        ("repository engines/orin_nx", "repository engines/orin_nx --json"),
        "Write a model repository for Triton's tensorrt backend, which loads engines of TensorRT alone. "
        "Engines of one model for several GPUs become one model, chosen by compute capability.",
    )
    triton.set_defaults(run=lambda arguments: _run(arguments, _triton))
    return triton


def _add_deepstream(jobs: Commands) -> argparse.ArgumentParser:
    stream = add_command(
        jobs,
        "deepstream",
        "DeepStream: a configuration file of nvinfer for each engine",
        ("nvinfer engines/orin_nx", "nvinfer engines/orin_nx --json"),
        "Write a configuration file of Gst-nvinfer for each engine, and the engine beside it. nvinfer "
        "loads engines of TensorRT alone.",
    )
    stream.set_defaults(run=lambda arguments: _run(arguments, _deepstream))
    return stream


def _run(arguments: argparse.Namespace, write: Write) -> int:
    from ..release.export.exported_engine import at_least_one

    found = at_least_one(_verified(path, arguments.state_dir) for path in _paths(arguments))
    with writing(arguments.folder):
        written = write(Path(arguments.folder), found)
    if arguments.json:
        print_json({"engines": [str(each.path) for each in found], "files": [str(path) for path in written]})
        return 0
    for path in written:
        say(f"WROTE {path}")
    say(f"{plural(len(found), 'engine')} exported into {arguments.folder}")
    return 0


def _context(arguments: argparse.Namespace) -> Write:
    def write(folder: Path, found: Sequence[ExportedEngine]) -> list[Path]:
        from ..release.export.model_package import write_context, write_package

        if arguments.package:
            return write_package(folder, found, arguments.embed)
        names = [each.path.stem for each in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise HandoffError(f"{twice}: several engines have this name; use --package, or name one of them")
        return [
            path
            for each in found
            for path in write_context(folder / f"{each.path.stem}.onnx", each, arguments.embed)
        ]

    return write


def _triton(folder: Path, found: Sequence[ExportedEngine]) -> list[Path]:
    from ..release.export.triton import write_repository

    return write_repository(folder, found)


def _deepstream(folder: Path, found: Sequence[ExportedEngine]) -> list[Path]:
    from ..release.export.deepstream import write_configurations

    return write_configurations(folder, found)


def _paths(arguments: argparse.Namespace) -> Iterator[Path]:
    """The engines named, or all that the last run declared."""
    for name in arguments.models:
        named = engines_of_model(name, arguments.state_dir)
        yield from named or map(Path, engines([name]))
    if not arguments.models:
        root = arguments.state_dir or nearest_state_folder(Path("."), Path.cwd())
        for tree in declarations(Path(os.path.abspath(root))):
            yield from (Path(os.path.relpath(engine.path)) for engine in tree.engines)


def _verified(path: Path, named: str | None) -> ExportedEngine:
    from ..release.export.exported_engine import verified_engine

    state = state_folder(path, named)

    def receipt(engine: Path) -> Receipt | None:
        return find_receipt(engine, list(state.receipts.of_file(engine.name)))[0]

    return verified_engine(path, receipt, lambda found: _onnx(path, state, found))


def _onnx(engine: Path, state: StateFolder, receipt: Receipt) -> Iterator[Path]:
    """Where the ONNX of an engine may be: where the last run had it, or where the receipt says."""
    declared = find_declared_engine(engine, state)
    if declared:
        yield declared.onnx
    for each in receipt.details.get("inputs", ()):
        if isinstance(each, dict) and each.get("role") == "onnx" and isinstance(each.get("name"), str):
            yield state.top / each["name"]
