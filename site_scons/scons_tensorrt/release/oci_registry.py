"""Uploads artifacts to an OCI registry, and downloads them.

The tag is written last, so that an interrupted upload leaves none. The registry checks the digest of each
upload, so a file that changes meanwhile is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import HandoffError
from ..values import Value
from .manifest import digest
from .oci_artifact import CONFIG, MANIFEST, Artifact, Reference, files_in
from .oras_client import check, connect

CHUNKED = 64 << 20  # bytes: larger files are uploaded in parts, as oras holds a whole upload in memory
NOT_FOUND = 404  # of HTTP
LARGEST = 4 << 20  # bytes of an OCI manifest; the distribution specification's own limit


class Pushed(Value):
    """uploaded: the names of the files that the registry did not have; size: their bytes; tagged: whether the
    tag was written."""

    uploaded: tuple[str, ...]
    size: int
    tagged: bool


class Registry:
    """One repository of a registry. Methods raise HandoffError.

    Credentials are those of `docker login`, in Docker's config.json.
    """

    def __init__(self, reference: Reference, plain_http: bool) -> None:
        self._reference = reference
        with self._errors():
            self._client, self._container = connect(reference, plain_http)

    def push(self, artifact: Artifact) -> Pushed:
        """Upload what the registry does not have, and then the tag."""
        uploaded, size = [], 0
        with self._errors(), tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "config.json")
            config.write_bytes(artifact.config)
            blobs = {layer.path: layer.descriptor() for layer in artifact.layers}
            blobs[config] = {
                "mediaType": CONFIG,
                "digest": f"sha256:{digest(artifact.config)}",
                "size": len(artifact.config),
            }
            for path, blob in blobs.items():
                if self._client.blob_exists(blob, self._container):
                    continue
                parts = blob["size"] > CHUNKED
                with _about(path.name):
                    check(self._client.upload_blob(str(path), self._container, blob, do_chunked=parts))
                uploaded.append(path.name)
                size += blob["size"]
            tagged = self._digest_of_tag() != artifact.digest
            if tagged:
                headers = {"Content-Type": MANIFEST}
                with _about("manifest"):
                    check(self._client.do_request(self._url(), "PUT", artifact.manifest, headers))
        return Pushed(tuple(uploaded), size, tagged)

    def _digest_of_tag(self) -> str | None:
        found = self._client.do_request(self._url(), "HEAD", headers={"Accept": MANIFEST})
        return found.headers.get("Docker-Content-Digest") if found.status_code == 200 else None

    def manifest(self) -> bytes:
        """The OCI manifest."""
        with self._errors():
            found = self._client.do_request(self._url(), "GET", headers={"Accept": MANIFEST}, stream=True)
            if found.status_code == NOT_FOUND:
                raise HandoffError("the registry has no such artifact")
            with _about("manifest"):
                check(found)
            data = b""
            for block in found.iter_content(1 << 16):
                data += block
                if len(data) > LARGEST:
                    raise HandoffError("its manifest is too large")
            if self._reference.pinned and f"sha256:{digest(data)}" != self._reference.version:
                raise HandoffError("the registry sent another manifest")
            return data

    def pull(self, manifest: bytes, folder: Path) -> None:
        """Download the files of an artifact, and compare their digests. folder: exists."""
        with self._errors():
            for name, (stated, size) in files_in(manifest).items():
                found = self._client.get_blob(self._container, stated, stream=True)
                with _about(name):
                    check(found)
                sha256, count = hashlib.sha256(), 0
                with Path(folder, name).open("xb") as out:
                    for block in found.iter_content(1 << 20):
                        sha256.update(block)
                        count += len(block)
                        if count > size:
                            break
                        out.write(block)
                if (f"sha256:{sha256.hexdigest()}", count) != (stated, size):
                    raise HandoffError(f"{name}: the registry sent other bytes")

    def _url(self) -> str:
        return f"{self._client.prefix}://{self._container.manifest_url(self._reference.version)}"

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the errors of the client into a HandoffError of one line."""
        try:
            yield
        except HandoffError as error:
            raise HandoffError(f"{self._reference}: {error}") from None
        except OSError as error:  # those of requests too
            raise HandoffError(f"{self._reference}: {_cause(error)}") from None
        except Exception as error:  # of oras, on an answer that it does not expect
            why = f"oras cannot read the registry's answer ({type(error).__name__}: {error})"
            raise HandoffError(f"{self._reference}: {why}") from None


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    try:
        yield
    except HandoffError as error:
        raise HandoffError(f"{what}: {error}") from None


def _cause(error: OSError) -> str:
    text = str(error)
    if "IncompleteRead" in text or "Connection aborted" in text:
        return "the registry broke the connection; run again"
    if "content-encoding" in text:
        return "the registry's answer cannot be decoded"
    if "SSL" in text:
        return "no TLS there that this Python trusts; for a registry without TLS, give --plain-http"
    if "Connection refused" in text or "NewConnectionError" in text or "NameResolution" in text:
        return "the registry cannot be reached"
    return f"{error.filename}: {error.strerror}" if error.filename else text
