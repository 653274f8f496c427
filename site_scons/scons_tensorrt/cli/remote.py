"""`worker`, `scheduler`, `certificates`: remote builds."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from .common import add_command, say, writing
from .key_options import add_signing_key, add_trusted_key, signing_key, trusted_keys

if TYPE_CHECKING:
    from .common import Commands

CERTIFICATES = "TRT_DISPATCH_CERTIFICATES"


def add(commands: Commands) -> None:
    _add_worker(commands)
    scheduler = add_command(
        commands,
        "scheduler",
        "run the scheduler that assigns compiles to workers",
        (
            "--certificates certificates/scheduler",
            "--listen tls://127.0.0.1:8787",
        ),
    )
    scheduler.add_argument(
        "--listen",
        metavar="tls://HOST:PORT",
        default="tls://0.0.0.0:8786",
        help="address to listen on (default: %(default)s)",
    )
    _add_certificates(scheduler)
    scheduler.set_defaults(run=_scheduler)
    certificates = add_command(
        *(commands, "certificates", "create the mutual TLS certificates for remote builds"),
        ("certificates", "certificates scheduler orin_nx client"),
    )
    certificates.add_argument(
        "folder", metavar="DIR", help="output folder; gets a subfolder for the authority and each NAME"
    )
    certificates.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="a machine or person (default: scheduler, worker and client)",
    )
    certificates.set_defaults(run=_certificates)


def _add_worker(commands: Commands) -> None:
    worker = add_command(
        *(commands, "worker", "run a remote build worker"),
        (
            "--scheduler tls://build-server:8786",
            "--scheduler tls://build-server:8786 --jobs 2",
        ),
    )
    worker.add_argument("--scheduler", metavar="tls://HOST:PORT", required=True, help="scheduler to join")
    worker.add_argument(
        "--store",
        metavar="URL",
        default=os.environ.get("TRT_STORE"),
        help="shared engine cache (default: $TRT_STORE)",
    )
    add_signing_key(worker)
    add_trusted_key(worker)
    worker.add_argument(
        "--python",
        metavar="PATH",
        default=os.environ.get("TRT_PYTHON"),
        help="Python interpreter with TensorRT (default: $TRT_PYTHON)",
    )
    worker.add_argument("--name", default=platform.node(), help="worker name (default: the host name)")
    worker.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        default=1,
        help="parallel compiles, TensorRT for RTX only (default: 1)",
    )
    worker.add_argument(
        "--folder", metavar="DIR", help="working folder (default: ~/.cache/scons-tensorrt/NAME)"
    )
    worker.add_argument(
        "--host", metavar="ADDRESS", help="address at which the scheduler reaches this worker"
    )
    worker.add_argument("--verbose", action="store_true", help="also show Dask's log")
    _add_certificates(worker)
    worker.set_defaults(run=_worker)


def _add_certificates(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--certificates",
        metavar="DIR",
        default=os.environ.get(CERTIFICATES),
        required=CERTIFICATES not in os.environ,
        help=f"folder with ca.pem, cert.pem and key.pem (default: ${CERTIFICATES})",
    )


def _worker(arguments: argparse.Namespace) -> int:
    from ..files.signing_keys import is_pem
    from ..remote.worker import Options, work

    key = signing_key(arguments)
    for name, value in (("--store", arguments.store), ("--signing-key", key)):
        if not value:
            arguments.wrong(f"{name} is required: engines are signed and uploaded to the shared cache")
    home = Path("~/.cache/scons-tensorrt").expanduser() / arguments.name
    options = Options(
        arguments.scheduler,
        Path(arguments.certificates).absolute(),
        {
            "url": arguments.store,
            "key": key if is_pem(key) else os.path.abspath(key),
            "trust": [os.path.abspath(each) for each in trusted_keys(arguments)],
        },
        Path(arguments.folder or home).absolute(),
        arguments.python,
        arguments.name,
        arguments.jobs,
        arguments.host,
        arguments.verbose,
    )
    asyncio.run(work(options, say))
    return 0


def _scheduler(arguments: argparse.Namespace) -> int:
    from ..remote.scheduler import schedule

    asyncio.run(schedule(arguments.listen, Path(arguments.certificates), say))
    return 0


def _certificates(arguments: argparse.Namespace) -> int:
    from ..remote.tls import make_certificates

    names = arguments.names or ["scheduler", "worker", "client"]
    with writing(arguments.folder):
        made = make_certificates(Path(arguments.folder), names)
    for place in made:
        say(f"{place}")
    say(f"{arguments.folder}/authority/key.pem can sign more certificates; never copy it to a worker")
    return 0
