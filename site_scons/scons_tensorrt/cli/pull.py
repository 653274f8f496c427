"""`pull`: download from an OCI registry what `push` uploaded, and verify it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HandoffError, plural
from .common import add_command, say, writing
from .push import EXAMPLE, LOCAL_EXAMPLE, add_options, add_reference, refusal

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    pull = add_command(
        commands,
        "pull",
        "download engines from an OCI registry, and verify them",
        (f"{EXAMPLE} fetched", f"{LOCAL_EXAMPLE} fetched --plain-http"),
        "Download into a new folder what `push` uploaded, and verify it, as `verify --manifest` does, but "
        "not against this host. Without --trusted-key, signatures are not checked. Needs the extra `oci`.",
    )
    add_reference(pull, "to download; NAME@sha256:DIGEST also works")
    pull.add_argument("folder", metavar="FOLDER", help="folder to create")
    add_options(pull)
    pull.set_defaults(run=_pull)


def _pull(arguments: argparse.Namespace) -> int:
    from ..release.manifest import digest
    from ..release.oci_artifact import Reference, files_in
    from ..release.oci_registry import Registry
    from ..release.verify_release import VerifyRequest

    reference, folder = Reference.parse(arguments.reference), Path(arguments.folder)
    if os.path.lexists(folder):
        raise HandoffError(f"{folder}: already exists; choose a folder to create")
    registry = Registry(reference, arguments.plain_http)
    manifest = registry.manifest()
    try:
        names = list(files_in(manifest))
    except HandoffError as error:
        raise HandoffError(f"{reference}: {error}") from None
    with writing(folder), _stopped_in_order():
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.absolute().parent) as partial:
            new = Path(partial, folder.name)
            new.mkdir()
            registry.pull(manifest, new)
            request = VerifyRequest([], str(new / names[0]), None, arguments.trusted_key)
            status = refusal(request, str(new), str(folder))
            if status:
                return status
            new.rename(folder)
    size = sum(each.stat().st_size for each in folder.iterdir())
    counts = f"{plural(len(names), 'file')}, {size / 1e6:.1f} MB"
    say(f"PULLED {reference} (sha256:{digest(manifest)}) to {folder}: {counts}")
    return 0


@contextlib.contextmanager
def _stopped_in_order() -> Iterator[None]:
    """Remove what was downloaded if SIGTERM ends the process, as after Ctrl-C."""

    def stop(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
