"""`verify` where engines are used: is each one what the build handed on, and is it for this host?

The order is the contract: filename, host, sidecar, sidecar's hash, manifest, manifest's hash,
manifest's signature; each refusal has a status of its own, and the earliest check that refused is the
exit status. It fails closed: what cannot be read, told or checked is refused, and an engine is
called OK only when every check that was asked for has passed, the signature included.

An engine is opened once, never through a link, and its header and hash are those of one reading. The
manifest is read once: what was parsed is what was hashed and what was signed.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..artifact.compatibility import why_not_here
from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX, EngineFilename
from ..artifact.plan import HEADER_BYTES, cut_short, parse_header, too_large, why_not_named
from ..artifact.sidecar import read_sidecar
from ..errors import EngineError, HandoffError, SidecarError, SigningError
from ..files.digest_cache import sha256_of
from ..files.reading import open_file, read_small, walk_files
from ..hardware.signature import HardwareSignature
from . import SUMS, files_of
from .manifest import LARGEST, Manifest, ManifestEntry, digest
from .provenance import LARGEST as LARGEST_ENVELOPES
from .provenance import covers, read_envelopes


class Status(enum.IntEnum):
    """Exit statuses, in the order of the checks; docs/firmware.md has the table."""

    OK = 0
    FILENAME = 10
    HOST = 11
    SIDECAR = 12
    SIDECAR_HASH = 13
    MANIFEST = 14
    MANIFEST_HASH = 15
    SIGNATURE = 16
    UNLISTED = 17
    MISSING = 18
    KEY = 19


class Finding(NamedTuple):
    """path: of the engine, file or manifest; why: of a refusal; what else is told of a success."""

    status: Status
    path: str
    why: str = ""

    @property
    def check(self) -> str:
        return self.status.name.lower().replace("_", " ")


class LoadedManifest(NamedTuple):
    """A manifest as it was read."""

    path: Path
    data: bytes
    manifest: Manifest


class VerifyRequest(NamedTuple):
    """host: None where no hardware was asked for, and no manifest; trusted: public key files; note:
    what of the host could not be checked."""

    paths: Sequence[str]
    manifest: str | None
    host: HardwareSignature | EngineError | None
    trusted: Sequence[str]
    note: str = ""


def verify(asked: VerifyRequest) -> Iterator[Finding]:
    """What was found: refusals, then, unless the manifest itself is refused, what is OK."""
    listed: LoadedManifest | None = None
    refusals: list[Finding] = []
    if asked.manifest is not None:
        try:
            listed = read_manifest(asked.manifest)
        except EngineError as error:
            refusals.append(Finding(Status.MANIFEST, asked.manifest, str(error)))
    if listed:
        refusals += _sums(listed)
    engines, strangers = _files(asked, listed)
    refusals += strangers
    found = [check(path, asked.host, listed) for path in engines]
    if listed:
        there = {os.path.basename(path) for path in engines}
        if any(os.path.isdir(path) for path in _places(asked)):
            refusals += [
                Finding(Status.MISSING, name, "the manifest lists it, and it is not there")
                for name in sorted({*listed.manifest.engines} - there)
            ]
    signed = _signed(listed, asked) if listed and asked.trusted else None
    if signed and signed.status:
        refusals.append(signed)
    doubt = any(each.status in (Status.MANIFEST, Status.SIGNATURE, Status.KEY) for each in refusals)
    yield from (each for each in found if each.status or not doubt)
    yield from refusals
    if listed and not doubt:
        count = len(listed.manifest.engines)
        words = signed.why if signed else "no signature was asked for"
        words += f"; {asked.note}" if asked.note else ""
        yield Finding(Status.OK, str(listed.path), f"lists {count} engines; {words}")


def _sums(listed: LoadedManifest) -> list[Finding]:
    """Whether SHA256SUMS, which a shell on the device checks, says what the manifest says."""
    path = str(listed.path.with_name(SUMS))
    try:
        if read_small(path, LARGEST, follow=False) == listed.manifest.sums():
            return []
        return [Finding(Status.MANIFEST, path, f"it does not say what {listed.path.name} says")]
    except OSError as error:
        why = "missing" if isinstance(error, FileNotFoundError) else f"not readable ({error.strerror})"
        return [Finding(Status.MANIFEST, path, why)]


def read_manifest(path: str) -> LoadedManifest:
    """The manifest, if it is what its own sidecar says. Raises HandoffError or SidecarError, whose
    text the path stands before."""
    try:
        data = read_small(path, LARGEST, follow=False)
    except OSError as error:
        raise HandoffError(f"not readable ({error.strerror})") from None
    if read_sidecar(path) != digest(data):
        raise HandoffError("its bytes are not those its sidecar states")
    return LoadedManifest(Path(path), data, Manifest.load(data))


def check(path: str, host: HardwareSignature | EngineError | None, listed: LoadedManifest | None) -> Finding:
    """One engine, through the checks in their order."""
    try:
        name = EngineFilename.parse(os.path.basename(path))
    except EngineError as error:
        return Finding(Status.FILENAME, path, str(error))
    entry = listed.manifest.engines.get(os.path.basename(path)) if listed else None
    try:
        with open_file(path, follow=False) as source:
            head = source.read(HEADER_BYTES)
            header = parse_header(head)
            if isinstance(host, EngineError):
                return Finding(Status.HOST, path, f"this host is not known: {host}")
            why = why_not_here(name, header, host, entry) if host else None
            if why:
                return Finding(Status.HOST, path, why)
            stated = read_sidecar(path)
            size = os.fstat(source.fileno()).st_size
            early = _by_size(path, head, size, stated, entry)
            if early:
                return early
            sha256, size = sha256_of(source, head, size)
    except SidecarError as error:
        return Finding(Status.SIDECAR, path, str(error).removeprefix(f"{path}{SIDECAR_SUFFIX}: "))
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        why = "the engine is missing" if gone else f"the engine is not readable ({error.strerror})"
        return Finding(Status.MISSING, path, why)
    if sha256 != stated:
        return Finding(Status.SIDECAR_HASH, path, "its bytes are not those its sidecar states")
    fault = cut_short(head, size) or why_not_named(header, name)
    if fault:
        return Finding(Status.SIDECAR_HASH, path, fault)
    return _load_manifest(path, entry, sha256, size) if listed else Finding(Status.OK, path)


def _by_size(path: str, head: bytes, size: int, stated: str, entry: ManifestEntry | None) -> Finding | None:
    """A refusal that the size alone decides: terabytes of a sparse file are not hashed."""
    fault = cut_short(head, size) or too_large(size)
    if fault is None and entry and entry.size != size:
        if stated != entry.sha256:
            why = f"the manifest lists other bytes: {entry.size} of them, here {size}"
            return Finding(Status.MANIFEST_HASH, path, why)
        fault = f"it has {size} bytes, and the manifest lists {entry.size}"
    return Finding(Status.SIDECAR_HASH, path, fault) if fault else None


def _load_manifest(path: str, entry: ManifestEntry | None, sha256: str, size: int) -> Finding:
    if entry is None:
        return Finding(Status.UNLISTED, path, "the manifest does not list it")
    if (entry.sha256, entry.size) != (sha256, size):
        moved = f"sha256 {entry.sha256[:12]}, here {sha256[:12]}"
        return Finding(Status.MANIFEST_HASH, path, f"the manifest lists other bytes: {moved}")
    return Finding(Status.OK, path)


def _signed(listed: LoadedManifest, asked: VerifyRequest) -> Finding:
    """Whether a trusted key signed a statement on this very manifest."""
    from . import keys  # only here is more than the standard library needed

    path = str(listed.path.with_name(files_of(listed.path.name)[2]))
    try:
        trusted = [keys.load_trusted(each) for each in asked.trusted]
    except SigningError as error:
        return Finding(Status.KEY, str(listed.path), str(error))
    try:
        envelopes = read_envelopes(read_small(path, LARGEST_ENVELOPES, follow=False))
    except OSError as error:
        return Finding(Status.SIGNATURE, path, f"not readable ({error.strerror})")
    except HandoffError as error:
        return Finding(Status.SIGNATURE, path, str(error))
    signers = [(each, keys.signed_by(each, trusted)) for each in envelopes]
    good = [(each, keyid) for each, keyid in signers if keyid]
    if not good:
        return Finding(Status.SIGNATURE, path, "no trusted key signed it")
    for envelope, keyid in good:
        if covers(envelope, listed.data, listed.manifest.engines):
            return Finding(Status.OK, path, f"signed by key {keyid}")
    return Finding(Status.SIGNATURE, path, f"what it signs is not {listed.path.name} as it is")


def _places(asked: VerifyRequest) -> list[str]:
    """What shall be verified: as named, or the folder of the manifest."""
    if asked.paths or asked.manifest is None:
        return list(asked.paths)
    return [os.path.dirname(asked.manifest) or "."]


def _files(asked: VerifyRequest, listed: LoadedManifest | None) -> tuple[list[str], list[Finding]]:
    """The engines to check, and what a manifest's folder holds besides, or a folder hides."""
    engines: list[str] = []
    strangers: list[Finding] = []
    for place in _places(asked):
        if not os.path.isdir(place):
            engines += [place.removesuffix(SIDECAR_SUFFIX)] if asked.paths else []
            continue
        own = _own(listed, place)
        for path, why in walk_files(place):
            if why:  # a folder: nobody knows what is in it
                strangers.append(Finding(Status.UNLISTED if listed else Status.MISSING, path, why))
                continue
            pair = path.endswith((SUFFIX, SUFFIX + SIDECAR_SUFFIX))
            engine = path.removesuffix(SIDECAR_SUFFIX)
            known = (
                listed is not None
                and os.path.basename(engine) in listed.manifest.engines
                and os.path.relpath(engine, place) == os.path.basename(engine)
            )
            if pair and (known or listed is None):
                engines.append(engine)
            elif pair and path != engine and os.path.lexists(engine):
                continue  # told of its engine
            elif listed and os.path.relpath(path, place) not in own:
                where = "" if known or not pair else _elsewhere(path, place, listed)
                why = where or "the manifest does not list it"
                strangers.append(Finding(Status.UNLISTED, path, why))
    if not engines and asked.manifest is None:
        raise HandoffError(f"{', '.join(_places(asked))}: no engine in this folder")
    return sorted(set(engines)), strangers


def _elsewhere(path: str, place: str, listed: LoadedManifest) -> str:
    """What is said of an engine that is listed, and lies in a subfolder."""
    name = os.path.basename(path.removesuffix(SIDECAR_SUFFIX))
    return f"the manifest lists it in {place}, not in a subfolder" * (name in listed.manifest.engines)


def _own(listed: LoadedManifest | None, place: str) -> set[str]:
    """The manifest and what belongs to it, where it lies in the folder itself."""
    if listed is None or not os.path.samefile(listed.path.parent, place):
        return set()
    return {listed.path.name, *files_of(listed.path.name)}
