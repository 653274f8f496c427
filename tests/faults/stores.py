"""A shared store that is a folder, as a model of a tree sees it: what of it can be used, judged by its
bytes and by what was done to them."""

from __future__ import annotations

import json
from pathlib import Path

from played import sha

from scons_tensorrt.files.signing_keys import generate


class Store:
    """room: for the folder and its key."""

    def __init__(self, room: Path) -> None:
        self.folder = room / "store"
        self._harmed: dict[Path, bytes] = {}  # entries and what they were changed to
        private, public, _ = generate()
        self._key, self._trusted = room / "ci", room / "ci.pub"
        self._key.write_bytes(private)
        self._trusted.write_bytes(public)

    def settings(self, mode: str) -> dict[str, str]:
        """For the environment of a run. mode: "write", "read" or "off"."""
        if mode == "off":
            return {}
        found = {"TRT_STORE": self.folder.as_uri(), "TRT_STORE_MODE": mode}
        if mode == "write":
            return {**found, "TRT_STORE_SIGNING_KEY": str(self._key)}
        return {**found, "TRT_STORE_TRUSTED_KEYS": str(self._trusted)}

    def files(self, kind: str) -> list[Path]:
        """Of all entries ("ac") or all bytes ("cas"), by the names and bytes they speak for, so that
        one history finds the same file each time."""
        found = [path for path in self.folder.glob(f"{kind}/*") if path.is_file()]
        return sorted(found, key=lambda path: _stable(path, kind))

    def key_of(self, name: str, digest: str) -> str | None:
        """The key of an entry that gives these bytes under this name; None where none can be used."""
        for path in self.files("ac"):
            body = _body(path)
            if (body.get("name"), body.get("sha256"), body.get("key")) == (name, digest, path.name):
                harmed = self._harmed.get(path) == path.read_bytes()
                return None if harmed or not self._has(digest, body["size"]) else path.name
        return None

    def _has(self, digest: str, size: int) -> bool:
        """Whatever lies behind the bytes is not taken."""
        path = self.folder / "cas" / digest
        return path.is_file() and sha(path.read_bytes()[:size]) == digest

    def harm(self, path: Path, data: bytes | None) -> None:
        """Write other bytes, or remove it where `data` is None."""
        if data is None:
            path.unlink()
        elif data != path.read_bytes():
            path.write_bytes(data)
            self._harmed[path] = data


def _body(path: Path) -> dict:
    try:
        found = json.loads(json.loads(path.read_bytes())["body"])
        return found if isinstance(found, dict) else {}
    except (ValueError, KeyError, TypeError):
        return {}


def _stable(path: Path, kind: str) -> tuple[str, str]:
    body = _body(path) if kind == "ac" else {}
    return f"{body.get('name')} {body.get('sha256')}", path.name
