"""Mutual TLS. Anyone who can talk to a scheduler can run code on every worker, so every peer needs a
certificate from the private authority of this scheduler.

One folder holds the files of a machine or person: `ca.pem`, `cert.pem` and `key.pem`.
"""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DispatchError

if TYPE_CHECKING:
    from trustme import CA, Blob

FILES = ("ca.pem", "cert.pem", "key.pem")
AUTHORITY = "authority"
DAYS = 825
OWNER = "scons-tensorrt"
SCHEME = "tls://"


def check_url(url: str) -> str:
    """`url`, if it is a tls:// address. Raises DispatchError otherwise."""
    host, _, port = url.removeprefix(SCHEME).rpartition(":")
    if not url.startswith(SCHEME) or not host or not port.isdigit() or "/" in host:
        raise DispatchError(
            f"DISPATCH={url}: write tls://HOST:PORT; without TLS anyone could run code on the workers"
        )
    return url


def security(folder: Path) -> Any:
    """Dask's Security with the files of a folder. Raises DispatchError."""
    from distributed.security import Security

    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DispatchError(
            f"{folder}: no {missing[0]}; DISPATCH_CERTIFICATES must name a folder with {', '.join(FILES)}, "
            "created by `python3 -m scons_tensorrt certificates`"
        )
    ca, cert, key = (str(folder / name) for name in FILES)
    roles = {
        f"tls_{role}_{what}": path
        for role in ("client", "scheduler", "worker")
        for what, path in (("cert", cert), ("key", key))
    }
    return Security(tls_ca_file=ca, require_encryption=True, **roles)


def make_certificates(folder: Path, names: list[str]) -> list[Path]:
    """Create a certificate folder in `folder` for each name, signed by `folder/authority`, which is created
    if missing; returns the new folders. Existing folders stay. Raises DispatchError, OSError."""
    ca = _authority(folder / AUTHORITY)
    made = []
    for name in names:
        place = folder / name
        if name == AUTHORITY or "/" in name or name.startswith("."):
            raise DispatchError(f"{name!r} cannot name a folder of certificates; choose another name")
        if place.exists():
            continue
        now = datetime.datetime.now(datetime.timezone.utc)
        try:
            issued = ca.issue_cert(
                re.sub(r"[^\w.:-]+|_+", "-", name),  # `orin_nx` is not a host name
                common_name=name,
                organization_name=OWNER,
                organization_unit_name=OWNER,
                not_before=now - datetime.timedelta(hours=1),  # the clocks of boards are often wrong
                not_after=now + datetime.timedelta(days=DAYS),
            )
        except ValueError as error:
            raise DispatchError(
                f"{name!r} cannot name a certificate ({error}); choose another name"
            ) from None
        pems = (ca.cert_pem, issued.cert_chain_pems[0], issued.private_key_pem)
        _write(place, dict(zip(FILES, pems)))
        made.append(place)
    return made


def _authority(folder: Path) -> CA:
    try:
        from trustme import CA
    except ImportError:
        raise DispatchError("trustme is not installed: run `python3 -m pip install trustme`") from None
    if not (folder / "key.pem").exists():
        ca = CA(path_length=0, organization_name=OWNER, organization_unit_name="dispatch")
        _write(folder, {"ca.pem": ca.cert_pem, "key.pem": ca.private_key_pem})
        return ca
    try:
        return CA.from_pem((folder / "ca.pem").read_bytes(), (folder / "key.pem").read_bytes())
    except ValueError as error:
        raise DispatchError(f"{folder}: {error}; remove the folder to make a new one") from None


def _write(folder: Path, files: dict[str, Blob]) -> None:
    """Write new files that only their owner can read."""
    folder.mkdir(parents=True, mode=0o700)
    for name, data in files.items():
        with open(folder / name, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            out.write(data.bytes())
