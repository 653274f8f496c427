"""`--signing-key` and `--trusted-key` of the commands that use the shared engine cache, and their names
in the last release: `--key` and `--trust`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TypeVar

from .common import say

_SIGNING_KEY, _TRUSTED_KEYS = "TRT_STORE_SIGNING_KEY", "TRT_STORE_TRUSTED_KEYS"
_T = TypeVar("_T", str, list[str])


def add_signing_key(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--signing-key",
        metavar="FILE",
        default="",
        help=f"private key that signs uploads (default: ${_SIGNING_KEY})",
    )
    command.add_argument("--key", default="", help=argparse.SUPPRESS)


def add_trusted_key(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--trusted-key",
        metavar="PATH",
        action="append",
        default=[],
        help="public key (PEM file), or a folder of *.pub, whose entries are used; may be repeated "
        f"(default: ${_TRUSTED_KEYS})",
    )
    command.add_argument("--trust", default="", help=argparse.SUPPRESS)


def signing_key(arguments: argparse.Namespace) -> str:
    """The path of the signing key, or the PEM itself; "" for none."""
    given = _either(arguments, "--signing-key", arguments.signing_key, "--key", arguments.key)
    old = "TRT_STORE_KEY"
    return given or _either(
        arguments, _SIGNING_KEY, os.environ.get(_SIGNING_KEY, ""), old, os.environ.get(old, "")
    )


def trusted_keys(arguments: argparse.Namespace) -> list[str]:
    """The paths of the trusted keys."""
    given = _either(arguments, "--trusted-key", arguments.trusted_key, "--trust", _paths(arguments.trust))
    old = "TRT_STORE_TRUST"
    return given or _either(
        arguments, _TRUSTED_KEYS, _paths(os.environ.get(_TRUSTED_KEYS)), old, _paths(os.environ.get(old))
    )


def _paths(text: str | None) -> list[str]:
    return [path for path in (text or "").split(os.pathsep) if path]


def _either(arguments: argparse.Namespace, new: str, value: _T, old: str, old_value: _T) -> _T:
    """The value of a setting, perhaps under its old name. Both names with different values are a usage
    error."""
    if not old_value:
        return value
    if value and value != old_value:
        arguments.wrong(f"{old} and {new} differ; give {new} alone")
    say(f"{old} is now {new}; the old name works until the next release", sys.stderr)
    return old_value
