"""Debian's docker-registry on loopback, over a folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

# bcrypt of "secret"
HTPASSWD = "builder:$2b$04$KVEQEdQU1aO8rpuexhHixutso8SQItn8OA9JfCyNF/SH8.Vgb.JHe\n"
PATIENCE_S = 20


class OciRegistry:
    """A running registry. login: it wants the user `builder` with the password `secret`; certificate: of
    trustme, for TLS. Skips the test where it is not installed."""

    def __init__(self, folder: Path, login: bool = False, certificate: Any = None) -> None:
        for program in ("docker-registry", "skopeo"):
            if not shutil.which(program):
                pytest.skip(f"needs {program}: apt-get install docker-registry skopeo")
        pytest.importorskip("oras")
        folder.mkdir(parents=True)
        self.folder, self.log = folder, folder / "log"
        (folder / "htpasswd").write_text(HTPASSWD)
        auth = f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n" if login else ""
        tls = ""
        if certificate:
            certificate.private_key_and_cert_chain_pem.write_to_path(folder / "tls.pem")
            tls = f", tls: {{certificate: {folder}/tls.pem, key: {folder}/tls.pem}}"
        (folder / "config.yml").write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"http: {{addr: '127.0.0.1:0'{tls}}}\n{auth}"
        )
        with self.log.open("wb") as out:
            command = ["docker-registry", "serve", folder / "config.yml"]
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        end = time.monotonic() + PATIENCE_S
        while not (found := re.search(r"listening on (127\.0\.0\.1:\d+)", self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
        self.address = found[1]

    def requests(self) -> list[str]:
        """The methods and paths so far, in order."""
        return re.findall(r'^127\.0\.0\.1 .*?"([A-Z]+ \S+) HTTP', self.log.read_text(), re.M)

    def skopeo(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["skopeo", *map(str, arguments)], capture_output=True, check=False)

    def raw(self, name: str) -> bytes | None:
        """The manifest as skopeo reads it; None for a tag that is not there."""
        done = self.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{self.address}/{name}")
        return done.stdout if done.returncode == 0 else None

    def blob(self, sha256: str) -> Path:
        """The file in which the registry keeps a blob."""
        return self.folder / f"data/docker/registry/v2/blobs/sha256/{sha256[:2]}/{sha256}/data"

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_S)
