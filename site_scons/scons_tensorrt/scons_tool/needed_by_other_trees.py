"""What other trees need of the files that `engines-prune` may remove."""

from __future__ import annotations

import json
import os
from pathlib import Path

import SCons.Errors

from ..artifact.filename import SUFFIX
from ..artifact.state_folder import StateFolder
from ..files.mounts import mount_below
from ..files.reading import read_small
from ..release.own_files import parsed
from ..release.prune_candidates import Item
from ..values import Value
from .nodes import PRUNE

LARGEST = 64 << 20  # bytes of another tree's declaration


class Place(Value):
    """A file, identified by its name and its folder's inode, independent of links and mounts."""

    device: int
    inode: int
    name: str

    @classmethod
    def of(cls, path: Path) -> Place | None:
        """None if the folder does not exist."""
        try:
            folder = os.stat(path.parent)
        except OSError:
            return None
        return cls(folder.st_dev, folder.st_ino, path.name)


class OtherTrees(Value):
    """What other trees that share the state folder declare, which is kept. models: (name, precision);
    places: of their engines; folders: of these engines, and their parents; before: declarations of
    earlier trees at the path of this tree."""

    models: frozenset[tuple[str, str]] = frozenset()
    places: frozenset[Place | None] = frozenset()
    folders: frozenset[tuple[int, int]] = frozenset()
    before: tuple[Path, ...] = ()

    @classmethod
    def of(cls, state: StateFolder) -> OtherTrees:
        """Those of the last runs. Raises UserError if a declaration cannot be read."""
        if state.inside:
            return cls()
        models, places, folders = set(), set(), set[tuple[int, int]]()
        before = list[Path]()
        own: dict[Path, bool] = {}
        for file in state.declared.parent.glob("*.json"):
            if file == state.declared:
                continue
            try:
                data = json.loads(read_small(file, LARGEST))
                before += [file] if data["top"] == str(state.top) else []
                for item in data["engines"]:
                    place = Path(data["top"], item["engine"])
                    name = parsed(place.name)
                    models.update([(name.model, name.precision)] if name else [])
                    if place.parent not in own:
                        own[place.parent] = is_own(state.top, place.parent)
                    if file in before and own[place.parent]:
                        continue  # in the earlier tree, which is gone
                    places.add(Place.of(place))
                    folders |= _folders_of(place)
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                raise SCons.Errors.UserError(
                    f"{PRUNE}: {file}: not readable ({error}), so what its tree needs is unknown; "
                    "repair or remove it"
                ) from None
        return cls(frozenset(models), frozenset(places), frozenset(folders), tuple(before))

    def may_own(self, path: Path) -> bool:
        """Whether they declared it in their last run, or it is an engine of one of their models, for
        any hardware, in one of their folders."""
        return Place.of(path) in self.places or (
            self._declare(path.name) and bool(_folders_of(path) & self.folders)
        )

    def need_receipts(self, item: Item) -> bool:
        """Whether an item is the receipts of an engine that they declare."""
        return item.path.parent.name == "receipts" and self._declare(f"{item.path.name}{SUFFIX}")

    def may_need_receipts_of(self, item: Item, state: StateFolder) -> bool:
        """Whether they may need the receipts of an item, which are stored by its name."""
        if parsed(item.path.name) is None:
            return not state.inside and item.path.parent.name != "receipts"
        return self._declare(item.path.name)

    def _declare(self, filename: str) -> bool:
        name = parsed(filename)
        return name is not None and (name.model, name.precision) in self.models


def is_own(top: Path, folder: Path) -> bool:
    """Whether a folder is inside this tree, not reached through a link or mount."""
    root, place = Path(os.path.realpath(top)), Path(os.path.realpath(folder))
    return place.is_relative_to(root) and mount_below(root, place) is None


def _folders_of(engine: Path) -> set[tuple[int, int]]:
    """The device and inode of an engine's folder and of its parent, the folder of all hardware."""
    found = (Place.of(folder / "x") for folder in (engine.parent, engine.parent.parent))
    return {(each.device, each.inode) for each in found if each}
