"""AFTER the build: what is handed on, how a device checks it, and what may go. Standard library only,
unless a signature is asked for."""

from ..artifact.filename import SIDECAR_SUFFIX

VERSION = "1"  # of how a manifest is written: another number writes every one again
SUMS = "SHA256SUMS"
ENVELOPE_SUFFIX = ".intoto.jsonl"


def files_of(name: str) -> tuple[str, str, str]:
    """The names beside a manifest called `name`: its sidecar, the sums, its signed statement."""
    return name + SIDECAR_SUFFIX, SUMS, name + ENVELOPE_SUFFIX
