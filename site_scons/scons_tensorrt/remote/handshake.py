"""Checks a scheduler before the client connects to it.

Different versions of `distributed` do not interoperate: a connection hangs without an error. So the
versions are compared first, over a separate connection.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

from ..errors import DispatchError
from .plain_data import fields_of
from .tls import SCHEME

PACKAGES = ("distributed", "dask")
ANSWER_S = 10.0  # for a silent scheduler


def quiet() -> None:
    """Silence Dask's logs, whose errors we report in one line, and set our connection timeout."""
    import logging
    import warnings

    import dask
    from distributed.versions import VersionMismatchWarning

    warnings.filterwarnings("ignore", category=VersionMismatchWarning)  # we raise an error instead
    dask.config.set({"distributed.comm.timeouts.connect": f"{ANSWER_S:g}s"})
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def versions() -> dict[str, str]:
    """Versions of the packages that must match on both sides. Raises DispatchError if one is missing."""
    try:
        import dask
        import distributed
    except ImportError:
        raise DispatchError(
            "distributed is not installed: run `python3 -m pip install distributed obstore cryptography`"
        ) from None
    return {"distributed": str(distributed.__version__), "dask": str(dask.__version__)}


async def check_scheduler(url: str, security: Any) -> None:
    """Raises DispatchError if the scheduler does not answer or runs another version."""
    from distributed.core import rpc

    ours = versions()
    arguments = security.get_connection_args("client")
    try:
        await asyncio.wait_for(_greeted(url, arguments["ssl_context"]), ANSWER_S)
        async with rpc(url, connection_args=arguments) as scheduler:
            said = await asyncio.wait_for(scheduler.versions(), ANSWER_S)
    except (OSError, asyncio.TimeoutError) as error:
        raise DispatchError(f"{url} does not answer: {cause(error)}") from None
    theirs = fields_of(fields_of(said).get("packages"))
    for name in PACKAGES:
        if theirs.get(name) != ours[name]:
            raise DispatchError(
                f"{url} runs {name} {theirs.get(name)}, this host {ours[name]}: they must be the same; "
                f"run `python3 -m pip install {name}=={theirs.get(name)}`"
            )


async def _greeted(url: str, context: Any) -> None:
    """Connect once: Dask would retry a closed port or a rejected certificate for long. TLS reports the
    rejection only with the first bytes that follow. Raises OSError."""
    host, _, port = url.removeprefix(SCHEME).rpartition(":")
    reader, writer = await asyncio.open_connection(
        host.strip("[]"), int(port), ssl=context, server_hostname=host.strip("[]")
    )
    try:
        if not await reader.read(1):
            raise ConnectionError("it closed the connection; is the certificate signed by its authority?")
    finally:
        writer.transport.abort()


def cause(error: BaseException) -> str:
    """The innermost reason: Dask wraps it several times."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    if isinstance(error, ssl.SSLError):
        return f"TLS: {str(error.strerror).partition(' (_ssl')[0]}"
    while (inner := error.__cause__ or error.__context__) is not None and str(inner):
        error = inner
    return " ".join(str(error).split())[:200] or f"no answer within {ANSWER_S:g} s"
