"""What a user can set of compiles on other machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import SCons.Errors
import SCons.Script

from ..errors import DispatchError
from .settings import below, value_of

if TYPE_CHECKING:
    from ..files.json_cache import JsonCache
    from ..hardware.host import Host
    from ..remote.provider import RemoteProvider
    from .providers import Providers

VARIABLES = {"TRT_DISPATCH": "", "TRT_DISPATCH_CERTIFICATES": "", "TRT_DISPATCH_WAIT": "0"}
HELP = """  DISPATCH=tls://HOST:PORT
                        a scheduler of machines that compile what this host cannot; needs STORE=
  DISPATCH_CERTIFICATES=DIR
                        a folder with ca.pem, cert.pem and key.pem for it
  DISPATCH_WAIT=SECONDS wait for a scheduler, or a machine, that is not there; default: 0
The same as TRT_DISPATCH, TRT_DISPATCH_CERTIFICATES and TRT_DISPATCH_WAIT.
"""


class DispatchSettings(NamedTuple):
    """url: "" for none; certificates: a folder; wait_s: seconds."""

    url: str = ""
    certificates: str = ""
    wait_s: float = 0.0


def read(env: Any, top: Path, store: str) -> DispatchSettings:
    """The scheduler of an environment's engines. store: the URL of its store. Raises UserError."""

    def chosen(argument: str) -> str:
        return str(SCons.Script.ARGUMENTS.get(argument) or value_of(env, f"TRT_{argument}"))

    url = chosen("DISPATCH")
    if not url:
        return DispatchSettings()
    from ..remote.tls import check_url

    try:
        check_url(url)
    except DispatchError as error:
        raise SCons.Errors.UserError(str(error)) from None
    certificates, wait = chosen("DISPATCH_CERTIFICATES"), chosen("DISPATCH_WAIT") or "0"
    if not store:
        raise SCons.Errors.UserError(f"DISPATCH={url} needs STORE=URL, which carries the bytes")
    if not certificates:
        raise SCons.Errors.UserError(f"DISPATCH={url} needs DISPATCH_CERTIFICATES=DIR")
    try:
        wait_s = float(wait)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s < float("inf"):
        raise SCons.Errors.UserError(f"DISPATCH_WAIT={wait}: write seconds, such as 600")
    folder = below(os.path.expanduser(certificates), top)
    return DispatchSettings(url, folder, wait_s)


def dispatcher(
    chosen: DispatchSettings, elsewhere: Providers, host: Host, devices: JsonCache
) -> RemoteProvider:
    """What sends compiles there; nothing is asked of it yet."""
    from ..remote.provider import RemoteProvider
    from ..remote.scheduler_client import SchedulerClient

    link = SchedulerClient(chosen.url, Path(chosen.certificates), chosen.wait_s)
    return RemoteProvider(link, lambda: elsewhere.shared, host, devices)
