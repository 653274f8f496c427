"""After the build: manifest, signatures, installation, verification on a device, and pruning.

Uses only the standard library, except for signatures.
"""

from ..artifact.filename import SIDECAR_SUFFIX

VERSION = "1"  # of the manifest format; changing it rewrites every manifest
SUMS = "SHA256SUMS"
ENVELOPE_SUFFIX = ".intoto.jsonl"


def files_of(name: str) -> tuple[str, str, str]:
    """The files beside a manifest called `name`: sidecar, SHA256SUMS, signed statement."""
    return name + SIDECAR_SUFFIX, SUMS, name + ENVELOPE_SUFFIX


def signature_of(name: str) -> str:
    """The OpenSSF model signature beside a manifest called `name`: manifest.sig of manifest.json."""
    return name.removesuffix(".json") + ".sig"
