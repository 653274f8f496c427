"""Uploads artifacts to an OCI registry, and downloads them, with the `oras` package.

The tag is written last, so that an interrupted upload leaves none. The registry checks the digest of each
upload, so a file that changes meanwhile is refused.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import HandoffError
from ..values import Value
from .manifest import digest
from .oci import CONFIG, MANIFEST, Artifact, Reference, files_in

PATIENCE_S = (10, 300)  # to connect; until the registry's next byte
CHUNKED = 64 << 20  # bytes: larger files are uploaded in parts, as oras holds a whole upload in memory
UNAUTHORIZED, NOT_FOUND = 401, 404  # statuses of HTTP
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
            self._client, self._container = self._connect(plain_http)

    def _connect(self, plain_http: bool) -> tuple[Any, Any]:
        try:
            import oras.provider
        except ImportError:
            raise HandoffError(
                "oras is not installed: run `python3 -m pip install oras`, or install the extra `oci`"
            ) from None
        logging.getLogger(oras.logger.logger.logger.name).setLevel(logging.CRITICAL + 1)

        class Client(oras.provider.Registry):  # type: ignore[misc]
            # The package's own five tries take two minutes to say that there is no login.
            do_request = oras.decorator.retry(attempts=2, timeout=0)(
                oras.provider.Registry.do_request.__wrapped__
            )

        registry = self._reference.registry
        hello = f"{'http' if plain_http else 'https'}://{registry}/v2/"
        first = Client(registry, insecure=plain_http)
        answer = first.session.get(hello, timeout=PATIENCE_S)
        if answer.status_code not in (200, UNAUTHORIZED):
            raise HandoffError(f"no registry answers at {hello} ({answer.status_code} {answer.reason})")
        basic = answer.headers.get("Www-Authenticate", "").lower().startswith("basic")
        client = Client(registry, insecure=plain_http, auth_backend="basic" if basic else "token")
        client.session.request = functools.partial(client.session.request, timeout=PATIENCE_S)
        container = oras.container.Container(f"{self._reference.name.rpartition('/')[2]}:tag")
        container.registry = registry
        container.namespace = self._reference.name.rpartition("/")[0] or None
        given = os.environ.get("DOCKER_CONFIG")  # which oras does not read
        client.auth.load_configs(container, [os.path.join(given, "config.json")] if given else None)
        if basic and not hasattr(client.auth, "_basic_auth"):
            raise HandoffError(f"{registry} wants a login: run `docker login {registry}` first")
        if basic and client.do_request(hello).status_code == UNAUTHORIZED:
            raise HandoffError(f"{registry} refuses the login: run `docker login {registry}` again")
        return client, container

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
                self._check(
                    self._client.upload_blob(str(path), self._container, blob, do_chunked=parts), path.name
                )
                uploaded.append(path.name)
                size += blob["size"]
            tagged = self._digest_of_tag() != artifact.digest
            if tagged:
                headers = {"Content-Type": MANIFEST}
                done = self._client.do_request(self._url(), "PUT", artifact.manifest, headers)
                self._check(done, "manifest")
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
            self._check(found, "manifest")
            data = bytes(found.raw.read(LARGEST + 1, decode_content=True))
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
                self._check(found, name)
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

    def _check(self, response: Any, what: str) -> None:
        """Raise HandoffError with the registry's own reason."""
        if response.status_code in (200, 201, 202):
            return
        why = response.reason
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
            error = response.json()["errors"][0]
            why = error.get("message") or error["code"]
        raise HandoffError(f"{what}: {why} ({response.status_code})")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the errors of the client into a HandoffError of one line."""
        try:
            yield
        except HandoffError as error:
            raise HandoffError(f"{self._reference}: {error}") from None
        except OSError as error:  # those of requests too
            raise HandoffError(f"{self._reference}: {_cause(error)}") from None
        except ValueError as error:
            raise HandoffError(f"{self._reference}: {error}") from None


def _cause(error: OSError) -> str:
    text = str(error)
    if "SSL" in text:
        return "no TLS there that this Python trusts; for a registry without TLS, give --plain-http"
    if "Connection refused" in text or "NewConnectionError" in text or "NameResolution" in text:
        return "the registry cannot be reached"
    return f"{error.filename}: {error.strerror}" if error.filename else text
