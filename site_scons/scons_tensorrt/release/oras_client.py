"""A client of one OCI registry, with the login of Docker: the `oras` package, which sends credentials to no
other server here."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
from typing import Any
from urllib.parse import urlsplit

from ..errors import HandoffError
from ..files.reading import read_small
from .oci_artifact import Reference

PATIENCE_S = (10, 300)  # to connect; until the registry's next byte
UNAUTHORIZED = 401  # of HTTP
LARGEST_CONFIG = 1 << 20  # bytes


def connect(reference: Reference, plain_http: bool) -> tuple[Any, Any]:
    """The client and the container of oras. Raises HandoffError, OSError and what oras raises."""
    oras, registry = _oras(), reference.registry
    hello = f"{'http' if plain_http else 'https'}://{registry}/v2/"
    new = _client_class(oras)
    answer = new(registry, insecure=plain_http).session.get(hello, timeout=PATIENCE_S)
    if answer.status_code not in (200, UNAUTHORIZED):
        raise HandoffError(f"no registry answers at {hello} ({answer.status_code} {answer.reason})")
    basic = answer.headers.get("Www-Authenticate", "").lower().startswith("basic")
    client = new(registry, insecure=plain_http, auth_backend="basic" if basic else "token")
    client.session.request = functools.partial(_request, client.session.request, plain_http)
    container = oras.container.Container(f"{reference.name.rpartition('/')[2]}:tag")
    container.registry = registry
    container.namespace = reference.name.rpartition("/")[0] or None
    _log_in(client.auth, container)
    if basic and not hasattr(client.auth, "_basic_auth"):
        raise HandoffError(wants_login(registry))
    if basic and client.do_request(hello).status_code == UNAUTHORIZED:
        raise HandoffError(refuses_login(registry))
    return client, container


def wants_login(registry: str) -> str:
    return f"{registry} wants a login: run `docker login {registry}` first"


def refuses_login(registry: str) -> str:
    return f"{registry} refuses the login: run `docker login {registry}` again"


def check(response: Any) -> None:
    """Raise HandoffError with the registry's own reason, unless a request succeeded."""
    if response.status_code in (200, 201, 202):
        return
    why = response.reason
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
        error = response.json()["errors"][0]
        why = error.get("message") or error["code"]
    raise HandoffError(f"{why} ({response.status_code})")


def _oras() -> Any:
    try:
        import oras
        import oras.provider
    except ImportError:
        raise HandoffError(
            "oras is not installed: run `python3 -m pip install oras`, or install the extra `oci`"
        ) from None
    logging.getLogger(oras.logger.logger.logger.name).setLevel(logging.CRITICAL + 1)
    return oras


def _client_class(oras: Any) -> Any:
    theirs = oras.provider.Registry.do_request.__wrapped__

    class Client(oras.provider.Registry):  # type: ignore[misc]
        # The package's own five tries take two minutes to say that there is no login.
        @oras.decorator.retry(attempts=2, timeout=0)  # type: ignore[untyped-decorator]
        def do_request(self, url: str, method: str = "GET", *more: Any, **named: Any) -> Any:
            """Raises AuthenticationException, which is not tried again."""
            if _server(url) != _server(f"{self.prefix}://{self.hostname}"):  # an upload may go elsewhere
                return _without_login(self.session, url, method, *more, **named)
            try:
                return theirs(self, url, method, *more, **named)
            except OSError:
                raise
            except (ValueError, AttributeError, LookupError, TypeError):
                # of the registry's demand for a login, which oras cannot meet or not read
                known = hasattr(self.auth, "_basic_auth")
                why = refuses_login(self.hostname) if known else wants_login(self.hostname)
                raise _refused(oras)(why) from None

        def _get_location(self, r: Any, container: Any) -> str:
            if r.status_code != 204:  # of a part
                check(r)
            location = super()._get_location(r, container)
            if not location:
                raise HandoffError("the registry names no place to upload to")
            return str(location)

    return Client


def _server(url: str) -> tuple[str, str | None, int]:
    """Scheme, host and port. Raises ValueError."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


@functools.cache
def _refused(oras: Any) -> Any:
    class Refused(HandoffError, oras.auth.AuthenticationException):  # type: ignore[misc]
        """Is not tried again by oras."""

    return Refused


def _without_login(
    session: Any,
    url: str,
    method: str,
    data: Any = None,
    headers: dict[str, str] | None = None,
    json: Any = None,
    stream: bool = False,
) -> Any:
    return session.request(method, url, data=data, headers=headers, json=json, stream=stream)


def _request(send: Any, plain_http: bool, method: str, url: str, **named: Any) -> Any:
    """Send a request. Raises HandoffError where a registry with TLS names a server without."""
    if not plain_http and not url.startswith("https://"):
        raise HandoffError(f"the registry names {url}, which is without TLS")
    return send(method, url, timeout=PATIENCE_S, **named)


def _log_in(auth: Any, container: Any) -> None:
    """Take the credentials of Docker's config.json, and of no other file. Raises HandoffError."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    path = os.path.join(folder, "config.json")
    try:
        given = json.loads(read_small(path, LARGEST_CONFIG))
        # the three that oras reads; it would mix them with those of ~/.docker
        names = ("auths", "credsStore", "credHelpers")
        auth._auth_config = {name: given[name] for name in names if given.get(name)} or {"auths": {}}
        auth.load_configs(container)
    except FileNotFoundError:
        return
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise HandoffError(f"{path}: no credentials can be read ({type(error).__name__}: {error})") from None
