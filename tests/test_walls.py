"""The walls between the rooms: who may import whom, read off the source and tried in a bare Python."""

import ast
import functools
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scons_tensorrt

PACKAGE = Path(scons_tensorrt.__file__).parent
SITE = PACKAGE.parent
ME = "scons_tensorrt"
WORKER, COMMON = f"{ME}.worker.trt", f"{ME}.worker.common"
CONVERTER = f"{ME}.worker.onnx"
WORKERS = f"{ME}.worker"
NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"

# Each room, and the rooms it may import besides itself and the package's own version.
ROOMS = (
    *("values", "errors", "files", "hardware", "artifact", "recipe", "worker", "build", "profile"),
    *("cache", "remote", "release", "report", "scons_tool", "cli"),
)
BELOW = {room: set(ROOMS[:at]) for at, room in enumerate(ROOMS)}
# Beside each other: none needs the other, and a device has neither SCons nor the command line.
BELOW["cache"] -= {"worker"}
BELOW["release"] -= {"cache", "remote", "worker"}
BELOW["report"] -= {"cache", "remote", "release", "worker"}
BELOW["cli"] -= {"scons_tool", "worker"}
BELOW["scons_tool"] -= {"worker"}
BELOW |= {
    "__main__": {"cli"},
    "tools": {"scons_tool"},
    "__init__": {"artifact", "build", "errors", "hardware"},  # the public names, on first use
}
# What else than the standard library a room may import.
OUTSIDE = {
    "scons_tool": {"SCons", "rich"},
    "files": {"filelock", "cryptography"},
    "cache": {"obstore"},
    "recipe": {"tomli", "tomllib"},  # the one on Python 3.10, the other later
    "cli": {"SCons", "shtab"},  # `build` runs the one, `completion` the other
    "report": {"jinja2", "markupsafe"},
    "release": {"oras", "onnx"},  # onnx reads what an exported engine was compiled from
    "remote": {"distributed", "dask", "msgpack", "trustme"},
}
# What the conversions' child process may import.
CONVERTERS = {"numpy", "onnx", "onnxruntime", "onnxconverter_common"}


def modules():
    return {
        ".".join((ME, *path.relative_to(PACKAGE).with_suffix("").parts)): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


MODULES = modules()


def room(module):
    return module.split(".")[1] if "." in module else "__init__"


@functools.cache
def imports(module, path=None):
    """The modules that a module imports, wherever in it: absolute names."""
    found = set()
    for node in ast.walk(ast.parse((path or MODULES[module]).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from .x import y`: y may be a module of x, or a name in it
            inner = {f"{origin}.{alias.name}" for alias in node.names}
            found.update((inner & set(MODULES)) or {origin})
    return found


def outside(module):
    names = {name.partition(".")[0] for name in imports(module)}
    return names - sys.stdlib_module_names - {ME}


def inside(module):
    return {name for name in imports(module) if name.partition(".")[0] == ME}


def test_the_walk_sees_relative_and_absolute_and_late_imports():
    assert f"{ME}.artifact.filename" in imports(f"{ME}.cli.name")
    assert "filelock" in imports(f"{ME}.files.engine_and_gpu_locks")
    assert f"{COMMON}.errors" in imports(f"{WORKER}.build")
    assert "SCons.Script" in imports(f"{ME}.scons_tool.settings")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_stands_in_a_room(module):
    assert room(module) in BELOW


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    mine = room(module)
    rooms = {room(name) for name in inside(module) if name != ME}
    assert rooms <= BELOW[mine] | {mine}


@pytest.mark.parametrize("module", MODULES)
def test_each_room_imports_only_its_own_packages(module):
    allowed = CONVERTERS if module.startswith(CONVERTER) else OUTSIDE.get(room(module), set())
    assert outside(module) <= allowed


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(CONVERTER)])
def test_the_converter_imports_itself_and_what_workers_share(module):
    assert all(name.startswith((CONVERTER, COMMON)) or name == WORKERS for name in inside(module))


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in ("hardware", "artifact")])
def test_hardware_and_artifact_need_the_standard_library_alone(module):
    assert outside(module) == set()


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith((WORKER, COMMON))])
def test_the_worker_imports_the_standard_library_and_itself(module):
    assert outside(module) == set()
    below = (COMMON, f"{ME}.hardware.cuda") if module.startswith(WORKER) else (COMMON,)
    assert all(
        name.startswith((WORKER, *below)) or name in (WORKERS, f"{ME}.hardware") for name in inside(module)
    )


def evaluated(node):
    """What a module evaluates when it runs: not annotations, nor what type checkers alone read."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if isinstance(child, ast.AST) and name not in ("annotation", "returns") and not for_types:
                yield child
                yield from evaluated(child)


def subscripted_types(module):
    """The types that a module gives parameters when it runs, as `Mapping[str, int]`."""
    nodes = list(evaluated(ast.parse(MODULES[module].read_bytes())))
    generic = {"list", "dict", "tuple", "set", "frozenset", "type"}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module in (
            "collections",
            "collections.abc",
            "contextlib",
        ):
            generic |= {alias.name for alias in node.names}
    found = [ast.unparse(node.value) for node in nodes if isinstance(node, ast.Subscript)]
    return [name for name in found if name.rpartition(".")[2] in generic]


def test_the_worker_gives_no_parameters_to_types_that_take_none_in_python_3_8():
    assert not {m: found for m in MODULES if room(m) == "worker" and (found := subscripted_types(m))}


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) != "worker"])
def test_nobody_imports_the_workers(module):
    """Except for the type of the job, which the build writes."""
    jobs = {f"{WORKER}.job"} if room(module) == "build" else set()
    assert not any(name.startswith(WORKERS) for name in inside(module) - jobs)


@pytest.mark.parametrize("module", MODULES)
def test_only_the_worker_and_the_public_names_are_imported_by_name(module):
    text = MODULES[module].read_text(encoding="utf-8")
    if "import_module(" in text or "__import__(" in text:
        assert room(module) in ("worker", "__init__")


def test_the_public_names_are_those_that_type_checkers_see():
    listed = {
        (f"{ME}.{home}", name) for home, names in scons_tensorrt._PUBLIC.items() for name in names.split()
    }
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    assert {(f"{ME}.{each.module}", each.names[0].name) for each in checked.body} == listed
    assert all(hasattr(scons_tensorrt, name) for _, name in listed)


def test_the_in_tree_tool_imports_the_scons_tool_alone():
    doors = list((SITE / "site_tools").glob("*.py"))
    for door in doors:
        assert {room(name) for name in imports(f"door.{door.stem}", door)} == {"scons_tool"}
    assert "trt_engines.py" in [door.name for door in doors]


def test_no_tool_is_called_like_a_module_it_would_hide():
    tools = [*(SITE / "site_tools").glob("*.py"), *(PACKAGE / "tools").glob("*.py")]
    assert not {"tensorrt", "tensorrt_rtx"} & {tool.stem for tool in tools}


# The same, tried: a Python that has nothing but its standard library.

WATCHED = (
    *("SCons", "onnx", "numpy", "filelock", "tensorrt", "tensorrt_rtx", "obstore", "cryptography", "oras"),
)


def bare(*arguments, **more):
    """Run Python without site-packages and without the user's environment."""
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        env={"PYTHONPATH": str(SITE), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(b"engine")
    (tmp_path / f"{NAME}.sha256").write_text(hashlib.sha256(b"engine").hexdigest())
    return path


@pytest.mark.parametrize("name", WATCHED)
def test_the_bare_python_has_nothing_installed(name):
    assert "ModuleNotFoundError" in bare("-c", f"import {name}").stderr


def test_verify_runs_where_nothing_is_installed(engine):
    done = bare("-m", ME, "verify", str(engine))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"OK {engine}\n", "")


def test_verify_finds_tampering_where_nothing_is_installed(engine):
    engine.write_bytes(b"Engine")
    done = bare("-m", ME, "verify", str(engine))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"FAILED {engine}: ")


@pytest.mark.parametrize(
    "arguments", [["name", "parse", NAME], ["--help"], ["explain", NAME], ["probe", "--hardware", "x"]]
)
def test_every_command_answers_in_words_where_nothing_is_installed(arguments, tmp_path):
    done = bare("-m", ME, *arguments, cwd=tmp_path)
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr


def test_verify_does_not_even_try_to_import_what_it_does_not_need(engine):
    program = f"""
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {WATCHED!r}:
            sys.exit("tried to import " + name)
sys.meta_path.insert(0, Watch())
from {ME}.cli import main
assert main(["verify", {str(engine)!r}]) == 0
foreign = {{m.partition(".")[0] for m in sys.modules}} - sys.stdlib_module_names
print(sorted(foreign))
"""
    done = bare("-c", program)
    assert (done.stderr, done.stdout.splitlines()[-1]) == ("", "['__main__', 'scons_tensorrt']")


@pytest.mark.parametrize("where", ["hardware", "artifact", "recipe"])
def test_a_room_of_the_standard_library_imports_in_a_bare_python(where):
    names = [name for name in MODULES if room(name) == where]
    done = bare("-c", "\n".join(f"import {name.removesuffix('.__init__')}" for name in names))
    assert done.stderr == ""


def test_no_modules_import_each_other_in_a_circle():
    """Annotations included."""
    below = {name: {each for each in imports(name) if each in MODULES} - {name} for name in MODULES}
    for name in below:  # a package's __init__ only hands names on
        below[name] = {each for each in below[name] if not each.endswith(".__init__")}
    while True:
        leaves = {name for name, found in below.items() if not found & below.keys()}
        if not leaves:
            break
        below = {name: found for name, found in below.items() if name not in leaves}
    # What is left: circles, and what imports one of them.
    above = True
    while above:
        imported = set().union(*below.values()) if below else set()
        above = below.keys() - imported
        below = {name: found for name, found in below.items() if name not in above}
    assert sorted(below) == []


@pytest.mark.parametrize("module", MODULES)
def test_a_text_names_only_modules_that_exist(module):
    """A rename leaves docstrings and comments behind."""
    text = MODULES[module].read_text(encoding="utf-8")
    rooms = {path.parent.relative_to(PACKAGE).as_posix() for path in MODULES.values()}
    named = re.findall(rf"(?<![\w/.])((?:{'|'.join(rooms - {'.'})})/\w+\.py)", text)
    assert [name for name in named if not (PACKAGE / name).exists()] == []
    files = {path.name for path in MODULES.values()} | {"script.py", "reader.py", "model.py"}  # of a user
    assert [name for name in re.findall(r"(?<![\w/'\".])([a-z_]+\.py)\b", text) if name not in files] == []
