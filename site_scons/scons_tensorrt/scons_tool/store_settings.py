"""The settings of the shared engine cache."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import SCons.Errors
import SCons.Script

from ..values import Value
from .console import say
from .settings import as_given, below, chosen, key_path, option, seconds, value_of

VARIABLES = {
    "TRT_STORE": "",
    "TRT_STORE_MODE": "read",
    "TRT_STORE_REFUSALS": "use",
    "TRT_FETCH": "all",
    "TRT_STORE_WAIT": "600",
    "TRT_STORE_PATIENCE": "10",
    "TRT_STORE_TIMEOUT": "60",
}
RENAMED = {"STORE_KEY": "STORE_SIGNING_KEY", "STORE_TRUST": "STORE_TRUSTED_KEYS"}  # for one release
# Not copied from the environment: env.Dump() would print the signing key.
KEYS = tuple(f"TRT_{name}" for name in (*RENAMED, *RENAMED.values()))
HELP = """  STORE=URL             shared engine cache: file:///…, s3://…, gs://… or az://…; default: none
  STORE_MODE=read|write write (for CI) also uploads what is built, signed with
                        STORE_SIGNING_KEY=FILE
  STORE_TRUSTED_KEYS=FILES
                        the public keys whose entries are used: files, or folders of *.pub
  STORE_REFUSALS=ignore compile even what the shared cache records as impossible to compile
  FETCH=all|needed|none what to download of what the shared cache has: all (default); needed: what
                        targets of the run open, or name; none: only what they open
  STORE_WAIT=SECONDS    how long to wait for uploads at the end; default: 600
  STORE_PATIENCE=SECONDS
                        how long to wait for the next byte of the shared cache; default: 10
  STORE_TIMEOUT=SECONDS for one of its operations, plus one for each MB; default: 60
The same settings as variables: TRT_STORE, TRT_STORE_MODE, TRT_STORE_SIGNING_KEY (the file, or
the PEM itself), TRT_STORE_TRUSTED_KEYS, TRT_STORE_REFUSALS, TRT_FETCH, TRT_STORE_WAIT,
TRT_STORE_PATIENCE, TRT_STORE_TIMEOUT.
"""
ALL = "all"  # of FETCH=
NEEDED = "needed"
NONE = "none"
_SCHEMES = ("file:///", "s3://", "gs://", "az://")


class StoreSettings(Value):
    """url: "" for no shared cache; signing_key: a path, or the PEM itself; trusted_keys: paths; wait_s:
    for uploads at the end of a run; patience_s: for the server's next byte; timeout_s: for one operation,
    plus one second for each MB; fetch: ALL, NEEDED or NONE."""

    url: str = ""
    writes: bool = False
    signing_key: str = ""
    trusted_keys: tuple[str, ...] = ()
    refusals: bool = True
    wait_s: float = 600.0
    patience_s: float = 10.0
    timeout_s: float = 60.0
    fetch: str = ALL


def read(env: Any, top: Path) -> StoreSettings:
    """The settings of an environment. Raises UserError."""
    url = chosen(env, "STORE")
    if not url:
        if SCons.Script.ARGUMENTS.get("FETCH", ALL) != ALL:
            raise SCons.Errors.UserError(f"FETCH={chosen(env, 'FETCH')} needs STORE=URL, the shared cache")
        return StoreSettings()
    if not url.startswith(_SCHEMES):
        raise SCons.Errors.UserError(
            f"{as_given('STORE')}={url}: write file:///FOLDER, s3://…, gs://… or az://…"
        )
    writes = _choice(env, "STORE_MODE", "read", "write") == "write"
    refusals = _choice(env, "STORE_REFUSALS", "use", "ignore") == "use"
    key = _renamed(env, "STORE_SIGNING_KEY", "STORE_KEY")
    if writes and not key:
        raise SCons.Errors.UserError(
            "STORE_MODE=write needs STORE_SIGNING_KEY=FILE; `python3 -m scons_tensorrt keygen FILE` makes one"
        )
    trusted = _renamed(env, "STORE_TRUSTED_KEYS", "STORE_TRUST").split(os.pathsep)
    return StoreSettings(
        url=url,
        writes=writes,
        signing_key=key_path(key, top),
        trusted_keys=tuple(below(place, top) for place in trusted if place),
        refusals=refusals,
        wait_s=seconds(as_given("STORE_WAIT"), chosen(env, "STORE_WAIT")),
        patience_s=seconds(as_given("STORE_PATIENCE"), chosen(env, "STORE_PATIENCE")),
        timeout_s=seconds(as_given("STORE_TIMEOUT"), chosen(env, "STORE_TIMEOUT")),
        fetch=_choice(env, "FETCH", ALL, NEEDED, NONE),
    )


def _choice(env: Any, name: str, *values: str) -> str:
    text = chosen(env, name)
    if text not in values:
        name = as_given(name)
        choices = " or ".join(f"{name}={each}" for each in values)
        raise SCons.Errors.UserError(f"{name}={text}: write {choices}")
    return text


def _renamed(env: Any, new: str, old: str) -> str:
    """A setting, perhaps under its old name: from the command line, else a construction variable, else the
    environment. Raises UserError if one of these has both names and they differ."""
    arguments, variables = SCons.Script.ARGUMENTS, (f"TRT_{new}", f"TRT_{old}")
    return (
        _either(f"{new}=", f"{old}=", arguments.get(new, ""), arguments.get(old, ""))
        or _either(*variables, *(value_of(env, name) for name in variables))
        or _either(*variables, *(os.environ.get(name, "") for name in variables))
    )


def _either(new: str, old: str, value: str, old_value: str) -> str:
    if not old_value:
        return value
    if value not in ("", old_value):
        raise SCons.Errors.UserError(f"{old} and {new} differ; set {new} alone")
    _warn(f"engines: {old} is now {new}; the old name works until the next release")
    return old_value


@lru_cache  # once in a run
def _warn(text: str) -> None:
    if not any(option(name) for name in ("silent", "question", "help", "clean")):
        say(text)
