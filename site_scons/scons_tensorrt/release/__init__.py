"""After the build: manifest, signatures, installation, verification on a device, and pruning.

Uses only the standard library, except for signatures.
"""

from ..artifact.filename import SIDECAR_SUFFIX

MANIFEST_VERSION = "1"  # of the format; changing it rewrites every manifest
BOM_VERSION = "1"  # of both bills of materials; changing it rewrites them
SUMS = "SHA256SUMS"
ENVELOPE_SUFFIX = ".intoto.jsonl"
CYCLONEDX_SUFFIX = ".cdx.json"
SPDX_SUFFIX = ".spdx.json"
LARGEST_BOM = 256 << 20  # bytes of a file


def files_of(name: str) -> tuple[str, str, str]:
    """The files beside a manifest called `name`: sidecar, SHA256SUMS, signed statement."""
    return name + SIDECAR_SUFFIX, SUMS, name + ENVELOPE_SUFFIX


def model_signature_of(name: str) -> str:
    """The OpenSSF model signature beside a manifest called `name`: manifest.sig of manifest.json."""
    return name.removesuffix(".json") + ".sig"


def boms_of(name: str) -> tuple[str, str]:
    """The bills of materials beside a manifest called `name`: CycloneDX, SPDX."""
    return name + CYCLONEDX_SUFFIX, name + SPDX_SUFFIX
