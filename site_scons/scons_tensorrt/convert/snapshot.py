"""The inputs of a step, so that what is converted is what was hashed.

ONNX Runtime and numpy read files by name, so a step works on private copies, hashed as they are written.
Scripts stay where they are, because they import what lies beside them; their stats tell whether they
changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..compile.pinned import changed, copy_hashed, wait_until_settled
from ..identity.reading import open_file
from ..integrity.memo import DigestMemo
from ..recipe.key import input_name
from .step import Onnx, SampleFiles, StepWanted, file_fields


def scripts(wanted: StepWanted) -> Iterator[Path]:
    """The files of a step that are run, or handed to a function, and so stay where they are."""
    yield from [wanted.script] if wanted.script else ()
    yield from wanted.files.values()
    if wanted.samples and wanted.samples.kind == "reader":
        yield from wanted.samples.files


def check_scripts(wanted: StepWanted, memo: DigestMemo) -> None:
    """Raise EngineBuildError where a script is no longer what the step is said to be made from."""
    named = {input_name("script"): wanted.script} if wanted.script else {}
    named.update({input_name("file", name): path for name, path in wanted.files.items()})
    for name, path in named.items():
        if memo.sha256(path) != wanted.ingredients[name]:
            raise changed(path, "converted")
    if wanted.samples and wanted.samples.kind == "reader":
        for name, text in file_fields({}, wanted.samples, lambda path, label: memo.sha256(path)).items():
            if wanted.ingredients[name] != text:
                raise changed(wanted.samples.path, "converted")


def sample_spec(samples: SampleFiles) -> dict[str, Any]:
    """A set of samples for a job, see convert/worker/samples.py."""
    return {"kind": samples.kind, "path": str(samples.path), **samples.key_fields}


def snapshot(wanted: StepWanted, folder: Path) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Private copies of the ONNX files and samples of a step below `folder`: their places by role, and
    the samples for a job. External data lies beside its ONNX, whatever links led to it.

    ONNX Runtime and numpy read by name, so only a copy is sure to be what was hashed. A reader's script
    stays where it is, see `PathStamps`. Raises EngineBuildError where a file has other bytes than
    `wanted` says, PublishError, and OSError.
    """
    digests: dict[Path, str] = {}
    places = {role: _copied(each, folder / role, digests) for role, each in wanted.onnx.items()}
    samples = wanted.samples
    spec = samples and sample_spec(samples)
    if samples and samples.kind != "reader":
        base = samples.path if samples.kind == "npy" else samples.path.parent
        for path in samples.files:
            _copy(path, folder / "samples" / path.relative_to(base), digests)
        spec = {**(spec or {}), "path": str(folder / "samples" / samples.path.relative_to(base))}
    _check_copied(wanted, digests)
    return places, spec


def named_as_given(text: str, wanted: StepWanted, folder: Path) -> str:
    """A message of the converter with the user's own paths in place of the copies below `folder`, which
    are gone when it is read."""
    originals: dict[str, Path] = {}
    for role, each in wanted.onnx.items():
        originals[_place(each, folder / role)] = each.path
        originals.update((str(folder / role / name), path) for name, path in each.external.items())
    if wanted.samples:
        base = folder / "samples"
        copy = base if wanted.samples.kind == "npy" else base / wanted.samples.path.name
        originals[str(copy)] = wanted.samples.path
    for copied in sorted(originals, key=len, reverse=True):
        text = text.replace(copied, str(originals[copied]))
    return text


def _place(onnx: Onnx, folder: Path) -> str:
    """Where the copy of an ONNX is: under its own name, unless its data has that."""
    name = onnx.path.name
    while name in {PurePosixPath(location).parts[0] for location in onnx.external}:
        name = f"_{name}"
    return str(folder / name)


def _copied(onnx: Onnx, folder: Path, digests: dict[Path, str]) -> str:
    place = _place(onnx, folder)
    _copy(onnx.path, Path(place), digests)
    for location, path in onnx.external.items():
        _copy(path, folder / location, digests)
    return place


def _copy(path: Path, place: Path, digests: dict[Path, str]) -> None:
    try:
        with open_file(path) as source:
            digest = copy_hashed(source, place)
    except FileNotFoundError:
        raise changed(path, "converted") from None
    if digests.setdefault(path, digest) != digest:  # copied for two roles
        raise changed(path, "converted")


def _check_copied(wanted: StepWanted, digests: Mapping[Path, str]) -> None:
    """Raise EngineBuildError unless what was copied is what the step is said to be made from."""
    samples = wanted.samples if wanted.samples and wanted.samples.kind != "reader" else None
    for name, sha256 in file_fields(wanted.onnx, samples, lambda path, label: digests[path]).items():
        if wanted.ingredients[name] != sha256:
            path = next(
                (each.path for role, each in wanted.onnx.items() if name == input_name(role)), None
            )
            raise changed(path or Path(name.rpartition(" ")[2]), "converted")


class PathStamps:
    """Files that a child process reads by name, for scripts: what moves when one is edited, replaced,
    renamed or relinked. Not seen: a folder above it that is renamed and put back."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._before = {path: _stamps(path) for path in paths}
        times = [times for found in self._before.values() for times in found or ()]
        wait_until_settled(max((ctime for *_, ctime in times), default=0))

    def check(self) -> None:
        """Raise EngineBuildError where a file changed since."""
        for path, before in self._before.items():
            if _stamps(path) != before:
                raise changed(path, "converted")


def _stamps(path: Path) -> list[tuple[int, ...]] | None:
    """Of the file, and of each link on the way to it; None where there is none."""
    links = [each for each in (path, *path.parents) if each.is_symlink()]
    try:
        stats = [path.stat(), *(each.lstat() for each in links)]
    except OSError:
        return None
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats]
