"""Verify a release on the host that uses it: does each engine match the manifest and the host?

The checks are the members of `Status`, in the order of their numbers; the exit status is the lowest of
all findings. Verification fails closed: an engine is OK only if every requested check passed, including
the signature.

An engine is opened once, without following links, so that its header and hash belong to the same file.
The manifest is read once, so that the bytes parsed, hashed and checked against the signature are the same.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..artifact.compatibility import why_not_here
from ..artifact.filename import RECORDED_SUFFIX, SIDECAR_SUFFIX, SUFFIX, EngineFilename
from ..artifact.plan_header import HEADER_BYTES, cut_short, parse_header, too_large, why_not_named
from ..artifact.sidecar import MISMATCH, read_sidecar
from ..errors import EngineError, HandoffError, SidecarError, SigningError, plural
from ..files.digest_cache import sha256_of
from ..files.in_parallel import in_order
from ..files.reading import open_file, read_small, walk_files
from ..files.signing_keys import load_trusted_keys
from ..hardware.signature import HardwareSignature
from ..values import Value
from . import SUMS, boms_of, files_of, model_signature_of
from .manifest import LARGEST, Manifest, ManifestEntry, RecordedFile, digest
from .manifest_signature import LARGEST as LARGEST_ENVELOPES
from .manifest_signature import covers, read_envelopes, signed_by


class Status(enum.IntEnum):
    """Exit statuses, in the order of the checks; see docs/firmware.md."""

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


class Finding(Value):
    """One result. path: an engine, other file or manifest; why: the reason of a failure, or a note."""

    status: Status
    path: str
    why: str = ""

    @property
    def check(self) -> str:
        return self.status.name.lower().replace("_", " ")


class LoadedManifest(Value):
    """A manifest and the bytes it was parsed from."""

    path: Path
    data: bytes
    manifest: Manifest


class VerifyRequest(Value):
    """host: None to skip the host check; an error fails it for every engine. trusted: public key files, or
    folders of them; note: what was not checked."""

    paths: Sequence[str]
    manifest: str | None
    host: HardwareSignature | EngineError | None
    trusted: Sequence[str]
    note: str = ""


def verify(request: VerifyRequest) -> Iterator[Finding]:
    """Check everything requested. If the manifest or its signature fails, no engine is OK."""
    listed: LoadedManifest | None = None
    refusals: list[Finding] = []
    if request.manifest is not None:
        try:
            listed = read_manifest(request.manifest)
        except EngineError as error:
            refusals.append(Finding(Status.MANIFEST, request.manifest, str(error)))
    if listed:
        refusals += _sums(listed)
    engines, unlisted = _files(request, listed)
    refusals += unlisted
    found = list(in_order(lambda path: check(path, request.host, listed), engines))
    recorded = listed.manifest.recorded() if listed else {}
    beside = [path + RECORDED_SUFFIX for path in engines]
    for path in (path for path in beside if os.path.basename(path) in recorded):
        refusals += _check_recorded(path, recorded[os.path.basename(path)])
    if listed:
        present = {os.path.basename(path) for path in engines}
        if any(os.path.isdir(path) for path in _places(request)):
            refusals += [
                Finding(Status.MISSING, name, "listed in the manifest but missing")
                for name in sorted({*listed.manifest.engines} - present)
            ]
    signed = _signed(listed, request) if listed and request.trusted else None
    if signed and signed.status:
        refusals.append(signed)
    doubt = any(each.status in (Status.MANIFEST, Status.SIGNATURE, Status.KEY) for each in refusals)
    yield from (each for each in found if each.status or not doubt)
    yield from refusals
    if listed and not doubt:
        count = plural(len(listed.manifest.engines), "engine")
        count += f" and {plural(len(recorded), 'recorded file')}" if recorded else ""
        notes = signed.why if signed else "signature not checked"
        notes += f"; {request.note}" if request.note else ""
        yield Finding(Status.OK, str(listed.path), f"lists {count}; {notes}")


def _sums(listed: LoadedManifest) -> list[Finding]:
    """Check that SHA256SUMS, used by `sha256sum -c`, matches the manifest."""
    path = str(listed.path.with_name(SUMS))
    try:
        if read_small(path, LARGEST, follow=False) == listed.manifest.sums():
            return []
        return [Finding(Status.MANIFEST, path, f"does not match {listed.path.name}")]
    except OSError as error:
        why = "missing" if isinstance(error, FileNotFoundError) else f"not readable ({error.strerror})"
        return [Finding(Status.MANIFEST, path, why)]


def read_manifest(path: str) -> LoadedManifest:
    """Read a manifest and check it against its sidecar. Raises HandoffError or SidecarError, without
    the path in the text."""
    try:
        data = read_small(path, LARGEST, follow=False)
    except OSError as error:
        raise HandoffError(f"not readable ({error.strerror})") from None
    if read_sidecar(path) != digest(data):
        raise HandoffError(MISMATCH)
    return LoadedManifest(Path(path), data, Manifest.load(data))


def check(path: str, host: HardwareSignature | EngineError | None, listed: LoadedManifest | None) -> Finding:
    """Run the checks on one engine, in order."""
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
                return Finding(Status.HOST, path, f"the hardware of this host is unknown: {host}")
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
        return Finding(Status.SIDECAR_HASH, path, MISMATCH)
    fault = cut_short(head, size) or why_not_named(header, name)
    if fault:
        return Finding(Status.SIDECAR_HASH, path, fault)
    return _check_listed(path, entry, sha256, size) if listed else Finding(Status.OK, path)


def _by_size(path: str, head: bytes, size: int, stated: str, entry: ManifestEntry | None) -> Finding | None:
    """Fail on the size alone, so that a huge sparse file is not hashed."""
    fault = cut_short(head, size) or too_large(size)
    if fault is None and entry and entry.size != size:
        if stated != entry.sha256:
            why = f"does not match the manifest: {entry.size} bytes listed, {size} found"
            return Finding(Status.MANIFEST_HASH, path, why)
        fault = f"it has {size} bytes; the manifest lists {entry.size}"
    return Finding(Status.SIDECAR_HASH, path, fault) if fault else None


def _check_listed(path: str, entry: ManifestEntry | None, sha256: str, size: int) -> Finding:
    if entry is None:
        return Finding(Status.UNLISTED, path, "not listed in the manifest")
    if (entry.sha256, entry.size) != (sha256, size):
        why = f"sha256 {entry.sha256[:12]} listed, {sha256[:12]} found"
        return Finding(Status.MANIFEST_HASH, path, f"does not match the manifest: {why}")
    return Finding(Status.OK, path)


def _check_recorded(path: str, listed: RecordedFile) -> Iterator[Finding]:
    """Yield a finding if the file recorded beside an engine is not the one that the manifest lists."""
    try:
        with open_file(path, follow=False) as source:
            size = os.fstat(source.fileno()).st_size
            same = size == listed.size and sha256_of(source)[0] == listed.sha256
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        yield Finding(Status.MISSING, path, "missing" if gone else f"not readable ({error.strerror})")
        return
    if not same:
        yield Finding(Status.MANIFEST_HASH, path, "does not match the manifest")


def _signed(listed: LoadedManifest, request: VerifyRequest) -> Finding:
    """Check that a trusted key signed a statement on this manifest."""
    path = str(listed.path.with_name(files_of(listed.path.name)[2]))
    try:
        trusted = load_trusted_keys(request.trusted)
    except SigningError as error:
        return Finding(Status.KEY, str(listed.path), str(error))
    if not trusted:
        return Finding(Status.KEY, str(listed.path), f"{', '.join(request.trusted)}: no *.pub in this folder")
    try:
        envelopes = read_envelopes(read_small(path, LARGEST_ENVELOPES, follow=False))
    except OSError as error:
        return Finding(Status.SIGNATURE, path, f"not readable ({error.strerror})")
    except HandoffError as error:
        return Finding(Status.SIGNATURE, path, str(error))
    signers = [(each, signed_by(each, trusted)) for each in envelopes]
    good = [(each, keyid) for each, keyid in signers if keyid]
    if not good:
        return Finding(Status.SIGNATURE, path, "not signed by a trusted key")
    for envelope, keyid in good:
        if covers(envelope, listed.data, listed.manifest.engines):
            return Finding(Status.OK, path, f"signed by key {keyid}")
    return Finding(Status.SIGNATURE, path, f"the signed statement does not match {listed.path.name}")


def _places(request: VerifyRequest) -> list[str]:
    """The paths to verify: those given, or the folder of the manifest."""
    if request.paths or request.manifest is None:
        return list(request.paths)
    return [os.path.dirname(request.manifest) or "."]


def _files(request: VerifyRequest, listed: LoadedManifest | None) -> tuple[list[str], list[Finding]]:
    """The engines to check, and findings on unlisted files and unreadable folders."""
    engines: list[str] = []
    unlisted: list[Finding] = []
    for place in _places(request):
        if not os.path.isdir(place):
            engines += [place.removesuffix(SIDECAR_SUFFIX)] if request.paths else []
            continue
        own = _own_files(listed, place)
        for path, why in walk_files(place):
            if why:  # an unreadable folder
                unlisted.append(Finding(Status.UNLISTED if listed else Status.MISSING, path, why))
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
                continue  # reported for its engine
            elif listed and os.path.relpath(path, place) not in own:
                misplaced = "" if known or not pair else _misplaced(path, place, listed)
                why = misplaced or "not listed in the manifest"
                unlisted.append(Finding(Status.UNLISTED, path, why))
    if not engines and request.manifest is None:
        raise HandoffError(f"{', '.join(_places(request))}: no engines in this folder")
    return sorted(set(engines)), unlisted


def _misplaced(path: str, place: str, listed: LoadedManifest) -> str:
    """The finding on a listed engine that is in a subfolder; empty for an unlisted one."""
    name = os.path.basename(path.removesuffix(SIDECAR_SUFFIX))
    if name not in listed.manifest.engines:
        return ""
    return f"the manifest lists it in {place}, not in a subfolder"


def _own_files(listed: LoadedManifest | None, place: str) -> set[str]:
    """The recorded files, and the manifest and its files if they are in this folder."""
    recorded = listed.manifest.recorded() if listed else {}
    if listed is None or not os.path.samefile(listed.path.parent, place):
        return {*recorded}
    name = listed.path.name
    return {name, *files_of(name), *boms_of(name), model_signature_of(name), *recorded}
