"""`completion`: what bash and zsh need to complete the commands, written by shtab."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import EngineError
from .common import PROGRAM, add_command

if TYPE_CHECKING:
    from .common import Commands

# Completes an argument by the kind of its placeholder. Model names: of the engines that are built.
MODELS = "ls engines engines/*/ 2>/dev/null | sed -n 's/__.*//p' | sort -u"
PREAMBLE = {
    "bash": '_scons_tensorrt_onnx() { compgen -f -X \'!*.onnx\' -- "$1"; compgen -d -S / -- "$1"; }\n'
    f'_scons_tensorrt_model() {{ compgen -W "$({MODELS})" -- "$1"; compgen -f -- "$1"; }}\n',
    "zsh": "_scons_tensorrt_onnx() { _files -g '*.onnx' }\n"
    f"_scons_tensorrt_model() {{ compadd -- $({MODELS}); _files }}\n",
}
FILES = ("FILE", "PATH", "ENGINE")
FOLDERS = ("DIR", "folder")


def add(commands: Commands) -> None:
    completion = add_command(
        commands,
        "completion",
        "print the completion of these commands for bash or zsh",
        ("bash > ~/.scons-tensorrt.bash", "zsh > ~/.zfunc/_scons-tensorrt"),
        "Print the completion of these commands. bash: source the file in ~/.bashrc. zsh: write it into a "
        "folder of fpath, before compinit runs.",
    )
    completion.add_argument("shell", choices=("bash", "zsh"))
    completion.set_defaults(run=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise EngineError("shtab is not installed: run `python3 -m pip install shtab`") from None
    parser = arguments.make_parser(PROGRAM)
    _choose(parser, {**shtab.FILE}, {**shtab.DIRECTORY})
    print(shtab.complete(parser, arguments.shell, preamble=PREAMBLE[arguments.shell]))
    return 0


def _choose(parser: argparse.ArgumentParser, file: dict[str, str], folder: dict[str, str]) -> None:
    """Say how each argument is completed, where its placeholder tells."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for each in action.choices.values():
                _choose(each, file, folder)
        found = _completer(str(action.metavar or action.dest), file, folder)
        if found and not action.choices:
            action.complete = found  # type: ignore[attr-defined]  # read by shtab


def _completer(metavar: str, file: dict[str, str], folder: dict[str, str]) -> Any:
    if metavar.startswith("MODEL.onnx"):
        return dict.fromkeys(PREAMBLE, "_scons_tensorrt_onnx")
    if metavar.endswith("MODEL"):
        return dict.fromkeys(PREAMBLE, "_scons_tensorrt_model")
    return file if metavar in FILES else folder if metavar in FOLDERS else None
