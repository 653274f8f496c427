"""`keygen`: write a signing key and its public key."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..errors import HandoffError
from .common import add_command, say, writing

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    keygen = add_command(
        *(commands, "keygen", "create a key pair for signing"),
        ("release.pem", "--type ecdsa-p256 keys/models.pem"),
        "Create a key pair for signing. With a key of type ecdsa-p256, env.EngineManifest also writes an "
        "OpenSSF model signature.",
    )
    keygen.add_argument(
        "file",
        metavar="FILE",
        help="signing key to write; its trusted key goes to FILE.pub, and missing folders are created",
    )
    keygen.add_argument(
        "--type",
        choices=("ed25519", "ecdsa-p256"),
        default="ed25519",
        help="kind of key (default: ed25519)",
    )
    keygen.set_defaults(run=_keygen)


def _keygen(arguments: argparse.Namespace) -> int:
    from ..files.signing_keys import PUBLIC_SUFFIX, generate

    public = arguments.file + PUBLIC_SUFFIX
    for path in (arguments.file, public):
        if os.path.lexists(path):
            raise HandoffError(f"{path}: already exists; keys are never overwritten, so choose another file")
    private_pem, public_pem, key_id = generate(arguments.type)
    with writing(arguments.file):
        os.makedirs(os.path.dirname(arguments.file) or ".", mode=0o700, exist_ok=True)
        for path, data, mode in ((arguments.file, private_pem, 0o600), (public, public_pem, 0o644)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(descriptor, "wb") as out:
                out.write(data)
    say(f"{arguments.file}: signing key written (key ID {key_id}); do not commit it")
    say(f"{public}: trusted key written; use it with --trusted-key or STORE_TRUSTED_KEYS=")
    return 0
