"""The settings of remote compiles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Errors

from ..errors import DispatchError
from ..values import Value
from .settings import as_given, below, chosen

if TYPE_CHECKING:
    from ..files.json_cache import JsonCache
    from ..hardware.probe_host import Host
    from ..remote.provider import RemoteProvider
    from .engine_providers import Providers

VARIABLES = {"TRT_DISPATCH": "", "TRT_DISPATCH_CERTIFICATES": "", "TRT_DISPATCH_WAIT": "0"}
HELP = """  DISPATCH=tls://HOST:PORT
                        a scheduler of remote build workers, for engines that this host cannot
                        compile; needs STORE=
  DISPATCH_CERTIFICATES=DIR
                        a folder with its ca.pem, cert.pem and key.pem
  DISPATCH_WAIT=SECONDS how long to wait for the scheduler or a worker; default: 0
The same settings as variables: TRT_DISPATCH, TRT_DISPATCH_CERTIFICATES, TRT_DISPATCH_WAIT.
"""


class DispatchSettings(Value):
    """url: "" for none; certificates: a folder; wait_s: seconds."""

    url: str = ""
    certificates: str = ""
    wait_s: float = 0.0


def read(env: Any, top: Path, store: str) -> DispatchSettings:
    """The settings of an environment. store: the URL of its shared cache. Raises UserError."""
    url = chosen(env, "DISPATCH")
    if not url:
        return DispatchSettings()
    from ..remote.tls import check_url

    try:
        check_url(url)
    except DispatchError as error:
        raise SCons.Errors.UserError(str(error)) from None
    certificates, wait = chosen(env, "DISPATCH_CERTIFICATES"), chosen(env, "DISPATCH_WAIT") or "0"
    if not store:
        raise SCons.Errors.UserError(
            f"{as_given('DISPATCH')}={url} needs STORE=URL, which transfers the files"
        )
    if not certificates:
        raise SCons.Errors.UserError(f"{as_given('DISPATCH')}={url} needs DISPATCH_CERTIFICATES=DIR")
    try:
        wait_s = float(wait)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s < float("inf"):
        raise SCons.Errors.UserError(f"{as_given('DISPATCH_WAIT')}={wait}: write seconds, such as 600")
    folder = below(os.path.expanduser(certificates), top)
    return DispatchSettings(url, folder, wait_s)


def dispatcher(
    scheduler: DispatchSettings, elsewhere: Providers, host: Host, devices: JsonCache
) -> RemoteProvider:
    """The provider that sends compiles to the scheduler; does not connect yet."""
    from ..remote.provider import RemoteProvider
    from ..remote.scheduler_client import SchedulerClient

    link = SchedulerClient(scheduler.url, Path(scheduler.certificates), scheduler.wait_s)
    return RemoteProvider(link, lambda: elsewhere.shared, host, devices)
