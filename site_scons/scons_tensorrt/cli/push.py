"""`push`: upload the engines of a manifest to an OCI registry."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EngineError, HandoffError, plural
from .common import add_command, say

if TYPE_CHECKING:
    from ..release.verify_release import VerifyRequest
    from .common import Commands

EXAMPLE, LOCAL_EXAMPLE = "oci://registry.example.com/drone:1.4", "oci://hub.lan/drone:1.4"
MANIFEST = "manifest.json"


def add(commands: Commands) -> None:
    push = add_command(
        commands,
        "push",
        "upload the engines of a manifest to an OCI registry",
        (f"{EXAMPLE} release", f"{LOCAL_EXAMPLE} release --plain-http"),
        "Upload the engines of a manifest, their sidecars and recorded files, the manifest and the files "
        "beside it, as an artifact of CNCF's ModelPack. All are verified first, as `verify --manifest` does, "
        "but not against this host. Uses the login of `docker login`. Needs the extra `oci`.",
    )
    add_reference(push, "to upload to, with a tag")
    push.add_argument(
        "folder", nargs="?", metavar="FOLDER", help="folder of the engines (default: that of the manifest)"
    )
    push.add_argument(
        "--manifest", metavar="FILE", help=f"manifest of the release (default: {MANIFEST} in FOLDER)"
    )
    add_options(push)
    push.set_defaults(run=_push)


def add_reference(command: argparse.ArgumentParser, use: str) -> None:
    command.add_argument("reference", metavar="oci://REGISTRY/NAME:TAG", help=f"artifact {use}")


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--trusted-key",
        metavar="PATH",
        action="append",
        default=[],
        help="public key (PEM file), or a folder of *.pub, that may sign the manifest; may be repeated",
    )
    command.add_argument("--plain-http", action="store_true", help="the registry has no TLS")


def _push(arguments: argparse.Namespace) -> int:
    from ..release.oci_artifact import Reference, make_artifact
    from ..release.oci_registry import Registry
    from ..release.verify_release import VerifyRequest, read_manifest

    reference = Reference.parse(arguments.reference)
    if reference.pinned:
        arguments.wrong(f"{reference}: give a tag to upload to, not a digest")
    if not arguments.folder and not arguments.manifest:
        arguments.wrong("FOLDER or --manifest is required")
    manifest = arguments.manifest or os.path.join(arguments.folder, MANIFEST)
    folder = Path(arguments.folder or os.path.dirname(manifest) or ".")
    try:
        listed = read_manifest(manifest)
    except EngineError as error:
        raise HandoffError(f"{manifest}: {error}") from None
    engines = [str(folder / name) for name in sorted(listed.manifest.engines)]
    status = refusal(VerifyRequest(engines, manifest, None, arguments.trusted_key))
    if status:
        return status
    artifact = make_artifact(listed, folder)
    pushed = Registry(reference, arguments.plain_http).push(artifact)
    word = "PUSHED" if pushed.uploaded or pushed.tagged else "UNCHANGED"
    counts = f"{plural(len(engines), 'engine')}, {plural(len(artifact.layers), 'file')}"
    sent = f"{len(pushed.uploaded)} uploaded ({pushed.size / 1e6:.1f} MB)"
    say(f"{word} {reference} ({artifact.digest}): {counts}, {sent}")
    return 0


def refusal(request: VerifyRequest, folder: str = "", shown: str = "") -> int:
    """Verify a release, and print what is refused. Returns the exit status, as of `verify --manifest`.

    shown: the folder to print in place of `folder`, which is temporary.
    """
    from ..release.verify_release import verify

    refused = [each for each in verify(request) if each.status]
    for each in refused:
        path = shown + each.path.removeprefix(folder) if shown else each.path
        why = each.why.replace(folder, shown) if shown else each.why
        say(f"REFUSED {path}: {each.check}: {why}")
    return min((int(each.status) for each in refused), default=0)
