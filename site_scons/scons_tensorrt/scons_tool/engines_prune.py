"""`scons engines-prune`: remove engines and files that are not declared any more.

Kept are the engines that this run declares, for every hardware file in `hardware/`, the built-ins, the
default host and the named hardware. The folder of hardware whose runtime is unknown is left alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import SCons.Errors
import SCons.Script

from ..artifact.filename import EngineFilename
from ..artifact.sidecar import read_sidecar
from ..errors import EngineError, HandoffError, HardwareError, SidecarError
from ..files.mounts import mount_below
from ..hardware.choose_hardware import BUILT_IN, Hardware
from ..release.own_files import entries, known_bytes
from ..release.prune_candidates import DAY_S, Folder, Item, choose, find
from ..release.remove_pruned import remove
from . import settings
from .engine_target import EngineTarget
from .needed_by_other_trees import OtherTrees, Place, is_own
from .nodes import PRUNE
from .session import Session


def prune(env: Any, session: Session) -> None:
    """List what can be removed; with PRUNE=yes, remove it. Raises UserError or BuildError."""
    keep, older_s, really = _asked()
    _check_alone(session)
    engines = list(session.engines)
    if not engines:
        raise SCons.Errors.UserError(f"{PRUNE}: no engine is declared, so what to keep is unknown")
    others = OtherTrees.of(session.state)
    models = frozenset((e.recipe.model, e.recipe.precision) for e in engines) | others.models
    steps = frozenset(session.derived)
    exports = frozenset(d.name for d in session.derived.values() if not d.owners)
    try:
        folders = list(_folders(session, engines))
        items, left = find(session.state, folders, models, steps, exports, session.digest_cache)
    except HandoffError as error:
        raise SCons.Errors.BuildError(errstr=str(error), status=2, exitstatus=2) from None
    say = session.messages.console.line
    for line in left:
        say(f"engines: {line}")
    if others.before:
        say(
            f"engines: what other trees at {session.top} declared is kept; once they are gone, remove "
            + ", ".join(map(str, sorted(others.before)))
        )
    spec = {Place.of(engine.path) for engine in engines}
    chosen = choose(items, keep, older_s)
    going = [i for i in chosen if Place.of(i.path) not in spec and not others.may_own(i.path)]
    dry = not (really and settings.writes())
    done = [item for item in going if _prune_item(session, item, dry, folders, others)]
    _summary(session, done, len(items) - len(chosen), dry)
    if not dry:
        session.digest_cache.forget_missing()
    if len(done) < len(going):
        raise SCons.Errors.BuildError(errstr="some files were not removed, see above", status=2, exitstatus=2)


def _check_alone(session: Session) -> None:
    """Raise UserError if the state folder inside the tree is a link or a mount: other trees may share
    it, and it only holds the declaration of one."""
    state = session.state
    place = os.path.realpath(state.root)  # Path.resolve() raises RuntimeError where links go round
    if state.inside and not Path(place).is_relative_to(os.path.realpath(state.top)):
        raise SCons.Errors.UserError(
            f"{PRUNE}: {state.relative(state.root)} is a link to {place}, which other "
            "trees may share; name that folder with TRT_STATE_DIR= in each of them, and build there once"
        )
    mount = mount_below(session.top, state.root) if state.inside else None
    if mount:
        raise SCons.Errors.UserError(
            f"{PRUNE}: {state.relative(mount)} is a mount, which other trees may share; mount it "
            "outside of the tree, name it with TRT_STATE_DIR= in each of them, and build there once"
        )


def _asked() -> tuple[int, float, bool]:
    """The values of KEEP, OLDER (in seconds) and PRUNE. Raises UserError."""

    def number(name: str, example: str, kind: type[int] | type[float]) -> float:
        text = str(SCons.Script.ARGUMENTS.get(name) or 0)
        try:
            value = kind(text)
        except ValueError:
            value = -1
        if not 0 <= value < 1e6:
            raise SCons.Errors.UserError(f"{name}={text}: write {example}")
        return value

    said = str(SCons.Script.ARGUMENTS.get("PRUNE", "no"))
    if said not in ("yes", "no", ""):
        raise SCons.Errors.UserError(f"PRUNE={said}: write PRUNE=yes, or leave it out")
    return (
        int(number("KEEP", "how many to keep of each, a whole number such as 2", int)),
        number("OLDER", "days, such as 30", float) * DAY_S,
        said == "yes",
    )


def _folders(session: Session, engines: list[EngineTarget]) -> Iterator[Folder]:
    """Every folder of engines, with the names to keep in it."""
    bases: dict[Path, list[EngineTarget]] = {}
    for engine in engines:
        named = engine.hardware is not None and engine.hardware.name
        bases.setdefault(engine.path.parent.parent if named else engine.path.parent, []).append(engine)
    hardware = {path.stem for path in (session.top / "hardware").glob("*.json")} | {*BUILT_IN}
    hardware |= {e.hardware.name for e in session.engines if e.hardware and e.hardware.name}
    for base, declared in sorted(bases.items()):
        yield _kept(session, base) if _is_foreign(session, base) else _folder(session, base, None, declared)
        for name in sorted(entry.name for entry in entries(base) if entry.is_dir()):
            path = base / name
            if path.is_symlink() or _is_foreign(session, path):
                yield _kept(session, path)
            elif name in hardware:
                yield _folder(session, base, name, declared)
            else:
                yield Folder(path, _declared_in(path, engines), f"no hardware has the name {name}")


def _is_foreign(session: Session, folder: Path) -> bool:
    """Whether other trees may use this folder, and no shared state folder says what they declare."""
    return session.state.inside and not is_own(session.top, folder)


def _kept(session: Session, folder: Path) -> Folder:
    why = (
        f"{session.state.relative(folder)}/ is kept: it is outside of the tree, or a link or mount leads to "
        "it, so other trees may need its engines; give them one state folder with TRT_STATE_DIR="
    )
    return Folder(folder, None, why)


def _folder(session: Session, base: Path, name: str | None, declared: list[EngineTarget]) -> Folder:
    """The folder of one hardware; of the default host if name is None."""
    path = base / name if name else base
    mine = _declared_in(path, session.engines)
    names, host = set(mine), None
    who = name or "this host"
    for engine in declared:
        try:
            hardware = _hardware(session, name, engine)
            found = EngineFilename.of(
                hardware.signature,
                engine.recipe.model,
                engine.recipe.precision,
                engine.recipe.ampere_plus,
            )
        except EngineError as error:
            where = f"{session.state.relative(path)}/ is kept"
            return Folder(path, None, f"{where}: the engines for {who} are unknown: {error}")
        names.add(found.build())
        host = None if name else found
    return Folder(path, frozenset(names), f"no engine of this name is declared for {who}", host)


def _declared_in(folder: Path, engines: list[EngineTarget]) -> frozenset[str]:
    return frozenset(engine.path.name for engine in engines if engine.path.parent == folder)


def _hardware(session: Session, name: str | None, engine: EngineTarget) -> Hardware:
    """Raises HardwareError."""
    found = engine.hardware
    if found is None or found.name != name:
        found = session.hardware.of(settings.Settings(name or "", "", "", engine.python, ""))
    if found.from_receipts:
        raise HardwareError("its runtime is not installed here, and receipts may name several")
    return found


def _prune_item(session: Session, item: Item, dry: bool, folders: list[Folder], others: OtherTrees) -> bool:
    """Print one item and, unless dry, remove it. Returns False if that failed."""
    label, size = session.state.relative(item.path), _megabytes(item.size)
    say = session.messages.console.line
    if dry:
        say(f"WOULD PRUNE {label} ({size}): {item.why}")
        session.messages.console.would("engine.prune", **_fields(item, label, "would prune"))
        return True
    try:
        now = OtherTrees.of(session.state)  # another tree may have started a build
        if now.may_own(item.path) or now.need_receipts(item):
            raise HandoffError("another tree now declares it")
        receipts = not others.may_need_receipts_of(item, session.state)
        remove(
            item, session.state, lambda name: _stated(name, folders, session), session.digest_cache, receipts
        )
    except (EngineError, OSError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        problem = HandoffError(f"it is not removed: {cause}")
        say(f"FAILED {label}: {type(problem).__name__}: {problem}", failure=True)
        return False
    say(f"PRUNED {label} ({size}): {item.why}")
    session.messages.console.event("engine.prune", **_fields(item, label, "pruned"))
    return True


def _fields(item: Item, label: str, outcome: str) -> dict[str, Any]:
    """The fields of an event."""
    model = item.path.name.split("__")[0]
    return {"model_name": model, "engine": label, "outcome": outcome, "reason": item.why, "bytes": item.size}


def _stated(name: str, folders: list[Folder], session: Session) -> set[str] | None:
    """The sha256 of engines of this filename, from their bytes and sidecars; None if no folder has or
    keeps one. Raises EngineError."""
    found, known = set[str](), False
    for folder in folders:
        path = folder.path / name
        known |= folder.names is None or name in folder.names or _may_exist(path)
        with contextlib.suppress(SidecarError):
            found.add(read_sidecar(path))
        if _may_exist(path):
            found |= known_bytes(session.state, path, session.digest_cache)
    return found if known or found else None


def _may_exist(path: Path) -> bool:
    """Whether the path exists, or cannot be checked."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return True


def _summary(session: Session, done: list[Item], kept: int, dry: bool) -> None:
    size = _megabytes(sum(item.size for item in done))
    more = f", {kept} kept by KEEP= or OLDER=" if kept else ""
    if not dry:
        text = f"engines: {len(done)} pruned, {size}{more}"
    else:
        option = "--yes" if sys.argv[0] == "scons-tensorrt" else "PRUNE=yes"  # as it was called
        hint = f"; {option} removes them" if done else ""
        text = f"engines: {len(done)} to prune, {size}{more}{hint}"
    session.messages.console.line(text)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
