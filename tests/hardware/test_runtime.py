"""Which TensorRT an interpreter has: read from folder names, a foreign one asked once."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from scons_tensorrt.errors import HardwareError
from scons_tensorrt.hardware.installed_tensorrt import installed
from scons_tensorrt.hardware.runtime import Interpreter


def site(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
    return str(folder)


def test_a_distribution_and_its_module_are_an_installed_runtime(tmp_path):
    path = site(tmp_path, "tensorrt", "tensorrt-10.3.0.30.dist-info")
    assert installed([path]) == {"tensorrt": {"version": "10.3.0.30", "cuda": None, "folder": path}}


def test_the_wheels_of_rtx_tell_version_and_cuda(tmp_path):
    path = site(
        tmp_path,
        "tensorrt_rtx",
        "tensorrt_rtx-1.7.1.116.dist-info",
        "tensorrt_rtx_cu13-1.7.1.116.dist-info",
        "tensorrt_rtx_cu13_bindings-1.7.1.116.dist-info",
        "tensorrt_rtx_cu13_libs-1.7.1.116.dist-info",
    )
    found = installed([path])
    assert found == {"tensorrt_rtx": {"version": "1.7.1.116", "cuda": "13.0", "folder": path}}


def test_one_product_is_not_taken_for_the_other(tmp_path):
    path = site(tmp_path, "tensorrt_rtx", "tensorrt_rtx-1.7.1.116.dist-info")
    assert "tensorrt" not in installed([path])


@pytest.mark.parametrize(
    "names",
    [
        ["tensorrt"],  # a module without a distribution: its version is not known
        ["tensorrt-10.3.0.30.dist-info"],  # a distribution whose module is gone
        ["tensorrt", "tensorrt_llm-1.0.0.dist-info"],  # another distribution
        ["tensorrt", "tensorrt-10.dist-info.bak"],  # not a distribution's folder
    ],
)
def test_half_an_installation_is_none(tmp_path, names):
    assert installed([site(tmp_path, *names)]) == {}


def test_the_first_folder_of_the_path_wins(tmp_path):
    first = site(tmp_path / "a", "tensorrt", "tensorrt-10.3.0.30.dist-info")
    second = site(tmp_path / "b", "tensorrt", "tensorrt-11.4.0.1.dist-info")
    assert installed([first, second])["tensorrt"]["version"] == "10.3.0.30"


def test_entries_of_the_path_that_are_no_folders_are_passed_over(tmp_path):
    (tmp_path / "lib.zip").write_bytes(b"PK")
    path = site(tmp_path / "a", "tensorrt", "tensorrt-10.3.0.30.dist-info")
    entries = [str(tmp_path / "lib.zip"), str(tmp_path / "missing"), path]
    assert installed(entries)["tensorrt"]["folder"] == path


@pytest.fixture
def foreign(tmp_path):
    """Another interpreter, which leaves a line in `asked` each time it is started."""

    class Foreign:
        python = str(tmp_path / "python")
        memo = tmp_path / "memo.json"
        site = tmp_path / "site"
        asked = tmp_path / "asked"

        def starts(self):
            return len(self.asked.read_text().splitlines()) if self.asked.exists() else 0

    site(Foreign.site, "tensorrt", "tensorrt-10.3.0.30.dist-info")
    script(
        Foreign.python,
        f'echo x >> "{Foreign.asked}"',
        f'PYTHONPATH="{Foreign.site}" exec "{sys.executable}" "$@"',
    )
    return Foreign()


def script(path, *lines):
    with open(path, "w", encoding="utf-8") as out:
        out.write("#!/bin/sh\n" + "\n".join(lines) + "\n")
    os.chmod(path, 0o755)


def ask(foreign):
    interpreter = Interpreter(foreign.python, foreign.memo)
    version = interpreter.runtime("tensorrt").version
    interpreter.save()
    return version


def test_a_foreign_interpreter_tells_of_its_own_runtime(foreign):
    assert ask(foreign) == "10.3.0.30"


def test_the_runtime_says_which_interpreter_has_it(foreign):
    assert Interpreter(foreign.python).runtime("tensorrt").python == foreign.python


def test_a_foreign_interpreter_is_asked_once_in_a_run(foreign):
    interpreter = Interpreter(foreign.python)
    interpreter.runtime("tensorrt")
    interpreter.runtime("tensorrt")
    assert foreign.starts() == 1


def test_its_answer_is_remembered_for_the_next_run(foreign):
    ask(foreign)
    assert ask(foreign) == "10.3.0.30"
    assert foreign.starts() == 1


def test_nothing_is_written_until_it_is_said(foreign):
    Interpreter(foreign.python, foreign.memo).runtime("tensorrt")
    assert not foreign.memo.exists()


def test_an_upgrade_is_seen(foreign):
    ask(foreign)
    old = foreign.site / "tensorrt-10.3.0.30.dist-info"
    old.rename(foreign.site / "tensorrt-11.4.0.1.dist-info")
    assert ask(foreign) == "11.4.0.1"


@pytest.mark.parametrize("stamp_kept", [False, True])
def test_an_upgrade_that_keeps_the_folders_times_is_seen(foreign, monkeypatch, stamp_kept):
    if stamp_kept:  # two images mounted one after the other can have the same times
        monkeypatch.setattr("scons_tensorrt.hardware.runtime._stamp", lambda python, path: [python])
    ask(foreign)
    before = foreign.site.stat()
    old = foreign.site / "tensorrt-10.3.0.30.dist-info"
    old.rename(foreign.site / "tensorrt-11.4.0.1.dist-info")
    os.utime(foreign.site, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ask(foreign) == "11.4.0.1"


def test_a_path_entry_that_keeps_the_folders_times_is_seen(foreign):
    ask(foreign)
    before = foreign.site.stat()
    (foreign.site / "more.pth").write_text("/elsewhere\n")
    os.utime(foreign.site, ns=(before.st_atime_ns, before.st_mtime_ns))
    ask(foreign)
    assert foreign.starts() == 2


@pytest.mark.parametrize("name", ["site/more.pth", "pyvenv.cfg"])
def test_settings_of_the_interpreter_that_are_edited_in_place_are_seen(foreign, tmp_path, name):
    file = tmp_path / name
    file.write_text("/first\n")
    ask(foreign)
    file.write_text("/other\n")
    ask(foreign)
    ask(foreign)
    assert foreign.starts() == 2


def test_another_program_under_the_same_name_is_asked_anew(foreign):
    ask(foreign)
    shutil.copy2(foreign.python, foreign.python + ".new")
    os.replace(foreign.python + ".new", foreign.python)
    ask(foreign)
    assert foreign.starts() == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"stamp": 1}', '{"answer": {"path": 1}}'])
def test_a_damaged_memo_counts_as_unknown(foreign, text):
    foreign.memo.write_text(text)
    assert ask(foreign) == "10.3.0.30"
    assert foreign.starts() == 1


def test_a_new_file_in_the_working_folder_does_not_start_the_interpreter_again(
    foreign, tmp_path, monkeypatch
):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    ask(foreign)
    (work / ".sconsign.dblite").write_bytes(b"SCons writes this at the end of a run")
    ask(foreign)
    assert foreign.starts() == 1


def test_a_product_that_is_not_installed_is_an_error_with_the_next_step(foreign):
    (foreign.site / "tensorrt-10.3.0.30.dist-info").rename(foreign.site / "other-1.dist-info")
    with pytest.raises(HardwareError, match=r"-m pip install tensorrt`,.*TRT_PYTHON") as caught:
        Interpreter(foreign.python).runtime("tensorrt")
    assert foreign.python in str(caught.value)


def test_without_a_name_it_is_the_interpreter_of_this_process():
    assert Interpreter(None).python == sys.executable


def test_a_command_name_is_found_on_the_path(foreign, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert Interpreter("python").python == foreign.python


def test_a_program_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(HardwareError, match=r"TRT_PYTHON=.*no such program"):
        Interpreter(str(tmp_path / "python9"))


NOT_PYTHON = [
    "exit 3",  # ends with a status and no word
    "echo 'no such module' >&2; exit 1",  # ends with a word
    "echo >&2; exit 1",  # ends with an empty line
    "echo hello",  # something else
    "echo '{}'",  # JSON without an answer
    "echo '[]'",  # JSON of another kind
    "true",  # says nothing
]


@pytest.mark.parametrize("line", NOT_PYTHON)
def test_a_program_that_is_no_python_is_an_error_that_names_it(tmp_path, line):
    program = str(tmp_path / "python")
    script(program, line)
    with pytest.raises(HardwareError, match=f"TRT_PYTHON={program}: .*did not answer"):
        Interpreter(program).runtime("tensorrt")


def test_the_last_words_of_a_failing_interpreter_are_passed_on(tmp_path):
    program = str(tmp_path / "python")
    script(program, "echo 'error while loading libpython' >&2; exit 127")
    with pytest.raises(HardwareError, match="error while loading libpython"):
        Interpreter(program).runtime("tensorrt")


@pytest.mark.parametrize(
    ("line", "told"),
    [(f'echo loading; exec {sys.executable} "$@"', "it printed 'loading'"), ("true", "it printed nothing")],
)
def test_what_a_wrapper_prints_is_the_reason(tmp_path, line, told):
    program = str(tmp_path / "python")
    script(program, line)
    with pytest.raises(HardwareError, match=rf"did not answer \({told}\); "):
        Interpreter(program).runtime("tensorrt")


def test_an_interpreter_that_is_too_old_is_named_with_what_is_needed(tmp_path):
    answer = (
        '{"python": "3.7.17", "executable": "x", "path": [], "products": {}, "os": "linux", "machine": "x"}'
    )
    script(tmp_path / "old", f"echo '{answer}'")
    with pytest.raises(HardwareError, match=r"old is Python 3\.7\.17; the compile needs Python 3\.8"):
        Interpreter(str(tmp_path / "old")).runtime("tensorrt")


def under(folder, machine):
    """An interpreter under an emulator of another machine, as far as the kernel plays one."""
    seen = subprocess.run(
        f"setarch {machine} uname -m", shell=True, capture_output=True, text=True, check=False
    )
    if seen.stdout.strip() != machine:
        pytest.skip(f"setarch {machine} is missing or forbidden here")
    script(folder / "python", f'exec setarch {machine} {sys.executable} "$@"')
    return str(folder / "python")


def test_an_interpreter_under_an_emulator_is_asked_for_its_machine(tmp_path, monkeypatch):
    path = site(tmp_path / "site", "tensorrt", "tensorrt-10.3.0.30.dist-info")
    monkeypatch.setenv("PYTHONPATH", path)
    memo = tmp_path / "memo.json"
    asked = Interpreter(under(tmp_path, "i686"), memo)
    found = asked.runtime("tensorrt")
    assert (found.os, found.machine) == ("linux", "i686")
    asked.save()
    assert Interpreter(str(tmp_path / "python"), memo).runtime("tensorrt") == found
    kept = json.loads(memo.read_text())
    kept["answer"].pop("machine")  # of an earlier version: asked again
    memo.write_text(json.dumps(kept))
    assert Interpreter(str(tmp_path / "python"), memo).runtime("tensorrt") == found
