"""Trees with several paths: bind mounts, links, containers that mount a tree at different places.

A state folder inside its tree uses relative paths. An external one records for each path which tree it
is (device, inode, file system) and the path by which it names the tree's files: the first path it was
built under. So files made under one path are found under the others.

Another tree at the same path may be a new clone, which takes over the files, or the tree of another
container. If the first tree comes back, there are two, and it gets another name. Until then its
declaration is kept under that name, so that prune keeps its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ..files.reading import read_small
from ..files.writing import write_atomic

MOST_PAST = 16  # trees that were at one path before
LARGEST = 1 << 16  # bytes of one tree's file
LARGEST_DECLARATION = 64 << 20


def hash_of(path: str | os.PathLike[str]) -> str:
    """A short ID of a path."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def inside(root: Path, top: Path) -> Path:
    """`root` as a path below `top`, if it is in the tree but given by another path of it. A state folder
    that several trees have used stays external."""
    if root.is_relative_to(top) or (root / "declared").exists():
        return root
    for place in (root, Path(os.path.realpath(root))):
        for above in place.parents:
            if _same(above, top):
                return top / place.relative_to(above)
    return root


def known_as(root: Path, top: Path) -> Path:
    """The path by which the external state folder `root` names the files of this tree."""
    tree, own = _identity(top), _read(root, hash_of(top))
    if not os.path.isdir(root):
        return top
    known = [entry for name in _names(root / "trees") if (entry := _read(root, name))]
    same = [entry["as"] for entry in known if entry["tree"] == tree]
    if same:  # several, if the first runs under two paths were concurrent
        return Path(min(same))
    if own and tree and tree in own["past"]:
        return _name_of(top, tree)
    return top if own or _declaration(root, top).exists() else _earlier(root, top)


def register(root: Path, top: Path, name: Path) -> None:
    """Let runs under other paths of this tree find its files. Raises OSError."""
    tree, place = _identity(top), top
    own, past = _read(root, hash_of(top)), []
    if own and own["tree"] != tree:
        past = [*own["past"], own["tree"]][-MOST_PAST:]
        place = name if name.parent == top else top
        if place == top:
            _keep_declaration(root, top, own, past)
    elif own:
        past = own["past"]
    entry = {"path": str(top), "as": str(name), "tree": tree, "past": past if place == top else []}
    if _read(root, hash_of(place)) != entry:
        file = root / "trees" / f"{hash_of(place)}.json"
        write_atomic(file, json.dumps(entry).encode(), durable=False)
        if name not in (top, place):
            _declaration(root, top).unlink(missing_ok=True)  # an older one of the same tree


def _keep_declaration(root: Path, top: Path, own: dict[str, Any], past: list[Any]) -> None:
    """Keep the declaration of the previous tree at this path, under the name it gets if it comes back, so
    that its files are not pruned. Raises OSError."""
    before = _declaration(root, _name_of(top, own["tree"]))
    if not before.exists() and _declaration(root, top).exists():
        write_atomic(before, read_small(_declaration(root, top), LARGEST_DECLARATION), durable=False)
    for tree in own["past"]:
        gone = _name_of(top, tree)
        if tree not in past and not (root / "trees" / f"{hash_of(gone)}.json").exists():
            _declaration(root, gone).unlink(missing_ok=True)


def _name_of(top: Path, tree: list[Any]) -> Path:
    """The name of a tree whose path another one has taken over. Only hashed, never created."""
    return top / f".{'-'.join(map(str, tree))}"


def _declaration(root: Path, top: Path) -> Path:
    return root / "declared" / f"{hash_of(top)}.json"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name.removesuffix(".json") for name in os.listdir(folder))
    except OSError:
        return []


def _identity(top: Path) -> list[int] | None:
    try:
        found = os.stat(top)
        return [found.st_dev, found.st_ino, os.statvfs(top).f_fsid]
    except OSError:
        return None


def _read(root: Path, name: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(read_small(root / "trees" / f"{name}.json", LARGEST))
        sound = os.path.isabs(entry["as"]) and isinstance(entry["tree"], list)
        sound = sound and isinstance(entry["past"], list)
        return entry if sound else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _earlier(root: Path, top: Path) -> Path:
    """The name that an earlier version, which stored only declarations, gave to this tree."""
    for file in sorted((root / "declared").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            name = Path(json.loads(read_small(file, LARGEST_DECLARATION))["top"])
            if file.stem == hash_of(name) and _same(name, top):
                return name
    return top


def _same(one: Path, two: Path) -> bool:
    try:
        return os.path.samefile(one, two)
    except OSError:
        return False
