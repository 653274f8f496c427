"""A release as an OCI artifact, by CNCF's ModelPack specification (modelpack/model-spec, docs/spec.md).

Each file is a layer of its own, uncompressed. The artifact holds no time, path or reference, so that the same
files have the same digest in every clone. Files are listed with the digests of the release manifest, which
comes first. Receipts are left out: they hold times, and what they say of inputs is in the manifest.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..artifact.filename import SIDECAR_SUFFIX, EngineFilename
from ..errors import HandoffError
from ..files.reading import read_small
from ..values import Value
from . import boms_of, files_of, model_signature_of
from .bom.check import declared, load
from .manifest import LARGEST, digest
from .manifest_signature import covers, read_envelopes
from .model_signature import signed_files
from .verify_release import LoadedManifest

SCHEME = "oci://"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_MODEL = "application/vnd.cncf.model"
ARTIFACT, CONFIG = f"{_MODEL}.manifest.v1+json", f"{_MODEL}.config.v1+json"
ENGINE, BESIDE, DOCUMENT = (f"{_MODEL}.{kind}.v1.raw" for kind in ("weight", "weight.config", "doc"))
TITLE = "org.opencontainers.image.title"  # the filename, for ORAS
FILEPATH = "org.cncf.model.filepath"  # the filename, for ModelPack
UNTESTED = "org.cncf.model.file.mediatype.untested"
MOST_FILES = 10_000
_LONGEST_NAME = 255  # bytes, of most file systems

# ModelPack's names; mixed, int4 and fp4 have none.
_PRECISIONS = {
    "fp32": "float32",
    "tf32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8": "int8",
    "fp8": "float8_e4m3",
}
# The grammar of the OCI distribution specification, 1.1.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"{SCHEME}([A-Za-z0-9.\[\]:-]+)/({_PART}(?:/{_PART})*)"
    r"(?::([A-Za-z0-9_][A-Za-z0-9._-]{0,127})|@(sha256:[0-9a-f]{64}))"
)


class Reference(Value):
    """Where an artifact is. name: its repository; version: a tag, or `sha256:` and a digest."""

    registry: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.registry}/{self.name}{'@' if self.pinned else ':'}{self.version}"

    @property
    def pinned(self) -> bool:
        """Whether the version is a digest."""
        return ":" in self.version

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises HandoffError."""
        found = _REFERENCE.fullmatch(text)
        if not found:
            raise HandoffError(
                f"{text}: not like oci://registry.example.com/drone/engines:1.4 (in lower case)"
            )
        return cls(found[1], found[2], found[3] or found[4])


class Layer(Value):
    """One file. path: where it is here; sha256: hex; size: in bytes."""

    path: Path
    media_type: str
    sha256: str
    size: int

    def descriptor(self) -> dict[str, Any]:
        name = self.path.name
        return {
            "mediaType": self.media_type,
            "digest": f"sha256:{self.sha256}",
            "size": self.size,
            "annotations": {FILEPATH: name, TITLE: name, UNTESTED: "false"},
        }


class Artifact(Value):
    """config, manifest: the bytes of ModelPack's configuration and of the OCI manifest."""

    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        return f"sha256:{digest(self.manifest)}"


def make_artifact(listed: LoadedManifest, folder: Path) -> Artifact:
    """The artifact of a verified release. folder: of its engines. Raises HandoffError."""
    layers = (*_beside_manifest(listed), *_engines(listed, folder))
    _check_signed(listed, {layer.path.name: layer.sha256 for layer in layers})
    config = _config(listed, layers)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": CONFIG, "digest": f"sha256:{digest(config)}", "size": len(config)},
        "layers": [layer.descriptor() for layer in layers],
    }
    return Artifact(layers, config, _json(manifest))


def _beside_manifest(listed: LoadedManifest) -> Iterator[Layer]:
    """The manifest, and the files beside it: those that are there of the ones that may be missing."""
    name = listed.path.name
    sidecar, sums, envelope = files_of(name)
    for each, data in ((name, listed.data), (sidecar, None), (sums, None)):
        yield _small(listed.path.with_name(each), BESIDE, data)
    optional = [(envelope, BESIDE), (model_signature_of(name), BESIDE)]
    optional += [(each, DOCUMENT) for each in boms_of(name)]
    for each, media_type in optional:
        path = listed.path.with_name(each)
        if os.path.lexists(path):
            yield _small(path, media_type)


def _engines(listed: LoadedManifest, folder: Path) -> Iterator[Layer]:
    for name, entry in sorted(listed.manifest.engines.items()):
        yield Layer(folder / name, ENGINE, entry.sha256, entry.size)
        yield _small(folder / (name + SIDECAR_SUFFIX), BESIDE)
    for name, recorded in sorted(listed.manifest.recorded().items()):
        yield Layer(folder / name, BESIDE, recorded.sha256, recorded.size)


def _check_signed(listed: LoadedManifest, files: Mapping[str, str]) -> None:
    """Raise HandoffError if a statement or model signature is of other files. Needs no key."""
    name = listed.path.name
    statement, signature = (
        listed.path.with_name(each) for each in (files_of(name)[2], model_signature_of(name))
    )
    again = "remove it, or write it again with SIGNING_KEY="
    for path, of_these in ((statement, _states), (signature, _signs)):
        if path.name not in files:
            continue
        try:
            right = of_these(path, listed, files)
        except HandoffError as error:
            raise HandoffError(f"{path}: {error}; {again}") from None
        if not right:
            raise HandoffError(f"{path}: signs other files than these; {again}")


def _states(path: Path, listed: LoadedManifest, files: Mapping[str, str]) -> bool:
    envelopes = read_envelopes(_read(path))
    return any(covers(each, listed.data, listed.manifest.engines) for each in envelopes)


def _signs(path: Path, listed: LoadedManifest, files: Mapping[str, str]) -> bool:
    return signed_files(_read(path)) == {name: files[name] for name in files if name != path.name}


def _read(path: Path) -> bytes:
    """Raises HandoffError."""
    try:
        return read_small(path, 4 * LARGEST, follow=False)
    except OSError as error:
        raise HandoffError(str(error.strerror)) from None


def _small(path: Path, media_type: str, data: bytes | None = None) -> Layer:
    try:
        data = _read(path) if data is None else data
    except HandoffError as error:
        raise HandoffError(f"{path}: {error}") from None
    return Layer(path, media_type, digest(data), len(data))


def _config(listed: LoadedManifest, layers: tuple[Layer, ...]) -> bytes:
    """ModelPack's configuration (docs/config.md): what the engines are."""
    names = [EngineFilename.parse(name) for name in sorted(listed.manifest.engines)]
    products = {str(entry.signature.get("product")) for entry in listed.manifest.engines.values()}
    models = sorted({name.model for name in names})
    precisions = sorted({_PRECISIONS[n.precision] for n in names if n.precision in _PRECISIONS})
    described: dict[str, Any] = {"title": f"TensorRT engines: {', '.join(models)}", **_declared(listed)}
    if len(models) == 1:
        described["name"] = models[0]
    config = {"format": ",".join(sorted(products))}
    if precisions:
        config["precision"] = ",".join(precisions)
    files = {"type": "layers", "diffIds": [f"sha256:{layer.sha256}" for layer in layers]}
    return _json({"descriptor": described, "config": config, "modelfs": files})


def _declared(listed: LoadedManifest) -> dict[str, Any]:
    """Licences and vendor, as the bills of materials beside the manifest declare them.

    Raises HandoffError for bills of another manifest.
    """
    if not any(os.path.lexists(listed.path.with_name(each)) for each in boms_of(listed.path.name)):
        return {}
    stated = [declared(each) for each in load(str(listed.path)).components()]
    licences = {each["licence"] for each in stated} - {""}
    suppliers = {each["supplier"] for each in stated} - {""}
    found: dict[str, Any] = {"licenses": sorted(licences)} if licences else {}
    return {**found, "vendor": suppliers.pop()} if len(suppliers) == 1 else found


def _json(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode("ascii")


def files_in(manifest: bytes) -> dict[str, tuple[str, int]]:
    """The files of an artifact, the release manifest first: digest (`sha256:` and hex) and size by name.

    Raises HandoffError for an artifact that `make_artifact` did not make.
    """
    try:
        fields, found = json.loads(manifest), {}
        layers = fields["layers"] if fields.get("artifactType") == ARTIFACT else []
        for layer in layers:
            name, stated, size = layer["annotations"][FILEPATH], layer["digest"], layer["size"]
            if not (_is_filename(name) and name not in found and type(size) is int):
                raise HandoffError("a layer has no name of a file of its own")
            if not re.fullmatch("sha256:[0-9a-f]{64}", stated):
                raise HandoffError(f"{name}: no valid sha256")
            found[name] = (stated, size)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HandoffError(f"damaged ({type(error).__name__})") from None
    if not 0 < len(found) <= MOST_FILES:
        raise HandoffError("not a release of engines")
    return found


def _is_filename(name: Any) -> bool:
    if not (isinstance(name, str) and name.isprintable() and name not in ("", ".", "..")):
        return False
    return name == os.path.basename(name) and len(os.fsencode(name)) <= _LONGEST_NAME
