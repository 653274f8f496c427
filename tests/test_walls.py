"""The walls between the rooms: who may import whom, read off the source and tried in a bare Python."""

import ast
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

import scons_tensorrt

PACKAGE = Path(scons_tensorrt.__file__).parent
SITE = PACKAGE.parent
ME = "scons_tensorrt"
WORKER = f"{ME}.compile.worker"
CONVERTER = f"{ME}.convert.worker"
NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"

# Each room, and the rooms it may import besides itself and the package's own version.
BELOW = {
    "errors": set(),
    "record": set(),
    "progress": set(),
    "identity": {"errors", "record"},
    "integrity": {"errors", "record", "identity"},
    "recipe": {"errors", "record", "identity", "integrity"},
    "compile": {"errors", "record", "progress", "identity", "integrity", "recipe"},
    "convert": {"errors", "record", "progress", "identity", "integrity", "recipe", "compile"},
    "store": {"errors", "record", "progress", "identity", "integrity", "recipe", "compile", "convert"},
    "handoff": {"errors", "record", "identity", "integrity", "recipe", "compile"},
    "dispatch": {"errors", "record", "progress", "identity", "integrity", "recipe", "compile", "store"},
    "graph": {
        *("errors", "record", "progress", "identity", "integrity", "recipe", "compile", "convert"),
        *("store", "dispatch", "handoff"),
    },
    "cli": {
        *("errors", "record", "identity", "integrity", "recipe", "compile", "convert"),
        *("store", "dispatch", "handoff"),
    },
    "__main__": {"cli"},
    "tools": {"graph"},
    "__init__": {"integrity"},  # load_verified, when it is asked for
}
# What else than the standard library a room may import.
OUTSIDE = {
    "graph": {"SCons", "rich"},
    "compile": {"filelock"},
    "store": {"obstore", "cryptography"},
    "handoff": {"cryptography", "jinja2", "markupsafe"},
    "dispatch": {"distributed", "dask", "msgpack", "cryptography"},
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
    assert f"{ME}.identity.filename" in imports(f"{ME}.cli.name")
    assert "filelock" in imports(f"{ME}.compile.locks")
    assert f"{WORKER}.failure" in imports(f"{WORKER}.build")
    assert "SCons.Script" in imports(f"{ME}.graph.settings")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_stands_in_a_room(module):
    assert room(module) in BELOW


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    mine = room(module)
    rooms = {room(name) for name in inside(module) if name != ME}
    assert rooms <= BELOW[mine] | {mine}


@pytest.mark.parametrize("module", MODULES)
def test_only_the_graph_imports_scons_and_only_the_compile_filelock(module):
    allowed = CONVERTERS if module.startswith(CONVERTER) else OUTSIDE.get(room(module), set())
    assert outside(module) <= allowed


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(CONVERTER)])
def test_the_converter_imports_itself_and_how_a_worker_talks(module):
    talk = (f"{WORKER}.link", f"{WORKER}.failure", f"{WORKER}.records", WORKER)
    assert all(name.startswith(CONVERTER) or name in talk for name in inside(module))


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in ("identity", "integrity")])
def test_identity_and_integrity_need_the_standard_library_alone(module):
    assert outside(module) == set()


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(WORKER)])
def test_the_worker_imports_the_standard_library_and_itself(module):
    assert outside(module) == set()
    assert all(
        name.startswith((WORKER, f"{ME}.identity.cuda")) or name == f"{ME}.identity"
        for name in inside(module)
    )


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith((WORKER, CONVERTER))])
def test_nobody_imports_the_workers(module):
    assert not any(name.startswith((WORKER, CONVERTER)) for name in inside(module))


@pytest.mark.parametrize("module", MODULES)
def test_only_the_worker_imports_by_a_name_it_is_told(module):
    text = MODULES[module].read_text(encoding="utf-8")
    if "import_module(" in text or "__import__(" in text:
        assert module.startswith((WORKER, CONVERTER))


def test_the_in_tree_door_opens_to_the_graph_alone():
    doors = list((SITE / "site_tools").glob("*.py"))
    for door in doors:
        assert {room(name) for name in imports(f"door.{door.stem}", door)} == {"graph"}
    assert "trt_engines.py" in [door.name for door in doors]


def test_no_tool_is_called_like_a_module_it_would_hide():
    tools = [*(SITE / "site_tools").glob("*.py"), *(PACKAGE / "tools").glob("*.py")]
    assert not {"tensorrt", "tensorrt_rtx"} & {tool.stem for tool in tools}


# The same, tried: a Python that has nothing but its standard library.

WATCHED = (
    *("SCons", "onnx", "numpy", "filelock", "tensorrt", "tensorrt_rtx", "obstore", "cryptography"),
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


@pytest.mark.parametrize("where", ["identity", "integrity", "recipe"])
def test_a_room_of_the_standard_library_imports_in_a_bare_python(where):
    names = [name for name in MODULES if room(name) == where]
    done = bare("-c", "\n".join(f"import {name.removesuffix('.__init__')}" for name in names))
    assert done.stderr == ""


def test_a_null_build_compiles_no_text_when_it_imports():
    # A dataclass is written as text and compiled, and so is a NamedTuple: record.py
    used = ", ".join(f"{ME}.graph.{name}" for name in ("tool", "steps", "manifest", "install"))
    ask = f"import sys, {used}; print(*(m for m in sys.modules if m.startswith('{ME}')))"
    names = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd=SITE
    ).stdout.split()
    assert {f"{ME}.recipe.options", f"{ME}.convert.step", f"{ME}.graph.listed"} <= {*names}
    for name in names:
        path = SITE.joinpath(*name.split("."))
        source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        assert all(costly not in source for costly in ("@dataclass", "(NamedTuple)")), name


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
