"""`keygen`: a pair of keys to sign manifests with, and to trust."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..errors import HandoffError
from .common import say, writing

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    keygen = commands.add_parser("keygen", help="write a key that signs manifests, and its public half")
    keygen.add_argument(
        "file",
        help="the private key; its public half goes to FILE.pub, and a missing folder is made for both",
    )
    keygen.set_defaults(run=_keygen)


def _keygen(arguments: argparse.Namespace) -> int:
    from ..release.keys import generate

    public = arguments.file + ".pub"
    for path in (arguments.file, public):
        if os.path.lexists(path):
            raise HandoffError(f"{path}: already there, and a key is never overwritten; name another file")
    private_pem, public_pem, keyid = generate()
    with writing(arguments.file):
        os.makedirs(os.path.dirname(arguments.file) or ".", mode=0o700, exist_ok=True)
        for path, data, mode in ((arguments.file, private_pem, 0o600), (public, public_pem, 0o644)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(descriptor, "wb") as out:
                out.write(data)
    say(f"{arguments.file}: the private key {keyid}; keep it out of every repo")
    say(f"{public}: for --trusted-key")
    return 0
