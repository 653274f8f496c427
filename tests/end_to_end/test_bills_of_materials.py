"""The bills of materials beside a manifest: read by the formats' own libraries and by checkers that others
wrote, up to date like any target."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_conversions import samples

from conftest import Tree, flip_last_bit, make_model, sha256
from scons_tensorrt.errors import HandoffError
from scons_tensorrt.release.bom.check import load

CDX, SPDX = "dist/manifest.json.cdx.json", "dist/manifest.json.spdx.json"
CARD = {
    "license": "Apache-2.0",
    "supplier": "Example Ltd <models@example.org>",
    "version": "3.1",
    "url": "https://example.org/a",
    "copyright": "2026 Example Ltd",
    "intended_use": "tests",
    "training_data": "random numbers",
}


def declare(tree: Tree, card: object = CARD, other: object = CARD) -> None:
    tree.write(
        f"""
        import atexit, sys
        ours = "scons_tensorrt.release.bom."
        atexit.register(lambda: print("IMPORTED", sorted(m for m in sys.modules if m.startswith(ours))))
        a = env.Engine("a", "models/a.onnx", model_card={card!r})
        b = env.Engine("b", "models/a.onnx", precision="fp16", model_card={other!r},
                       accuracy=dict(inputs="models/s.npz", atol=0.5, record=1))
        m = env.EngineManifest("dist/manifest.json", [a, b])
        env.InstallEngines("/engines", [a, b], manifest=m)
        """
    )


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Two engines of one model, one converted and compared, with bills."""
    tree = Tree(tmp_path_factory.mktemp("bills") / "tree")
    make_model(tree.path("models/a.onnx"), seed=1)
    samples(tree.path("models/s.npz"), 2)
    declare(tree)
    run = tree.scons("dist")
    assert (run.status, run.built) == (0, ["a", "b"]), run.out
    assert "\nWROTE dist/manifest.json.cdx.json (2 engines) because not written before\n" in run.out
    return tree


@pytest.fixture
def made(origin: Tree, tmp_path: Path) -> Tree:
    return origin.twin(tmp_path / "tree")


def read(tree: Tree, name: str = CDX) -> dict:
    return json.loads(tree.path(name).read_text())


def test_cyclonedx_is_valid_by_its_schema_and_library(origin: Tree) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    pytest.importorskip("jsonschema")
    from cyclonedx.model.bom import Bom
    from cyclonedx.schema import SchemaVersion

    text = origin.path(CDX).read_text()
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = Bom.from_json(json.loads(text))
    assert bom.validate()
    assert {each.name for each in bom.components} >= {"models/a.onnx", "b.fp16.onnx", "TensorRT for RTX"}


def test_another_checker_of_cyclonedx_accepts_it(origin: Tree, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("cdx-ev")
    if not program.exists():
        pytest.skip("cyclonedx-editor-validator is not installed")
    shutil.copy(origin.path(CDX), tmp_path / "bom.json")
    done = subprocess.run([program, "validate", tmp_path / "bom.json"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_spdx_is_read_by_its_library(origin: Tree) -> None:
    model = pytest.importorskip("spdx_python_model.bindings.v3_0_1")
    found = model.SHACLObjectSet()
    with open(origin.path(SPDX), "rb") as source:
        model.JSONLDDeserializer().read(source, found)
    assert found.missing_ids == set()
    assert len(list(found.foreach_type(model.ai_AIPackage))) == 4  # two engines, their model, its fp16
    assert len(list(found.foreach_type(model.build_Build))) == 3  # a conversion and two compiles


@pytest.mark.parametrize("standard", ["ntia", "bsi"])
def test_the_checker_of_minimum_elements_accepts_it(origin: Tree, standard: str) -> None:
    sbom = pytest.importorskip("ntia_conformance_checker")
    path = str(origin.path(SPDX))
    if standard == "ntia":
        checked = sbom.NTIAChecker(file=path, sbom_spec="spdx3")
        assert checked.compliant, checked.output_json()
        return
    checked = sbom.BSIChecker(file=path, sbom_spec="spdx3")
    required = {name for name, right in checked.table_elements if not right and "(" not in name}
    # Of the runtime, which is not delivered, and of what is recorded beside an engine.
    runtime, recorded = "TensorRT for RTX", "b__sm80plus_cu13.0_rtx1.7_fp16.engine.recorded.npz"
    assert required == {"Distribution Filenames", "Distribution Licenses"}
    assert {name for name, _ in checked.components_without_filenames} == {runtime}
    assert {name for name, _ in checked.components_without_concluded_licenses} == {runtime, recorded}


def test_it_says_what_the_files_are(origin: Tree) -> None:
    parts = {each["name"]: each for each in read(origin)["components"]}
    manifest = json.loads(origin.path("dist/manifest.json").read_text())
    for engine in manifest["engines"]:
        path = origin.path(f"engines/{engine['name']}")
        hashes = {each["alg"]: each["content"] for each in parts[path.name]["hashes"]}
        whole = path.read_bytes()
        assert hashes == {
            "SHA-256": hashlib.sha256(whole).hexdigest(),
            "SHA-512": hashlib.sha512(whole).hexdigest(),
        }
        said = {each["name"]: each["value"] for each in parts[path.name]["properties"]}
        assert said["scons-tensorrt:recipe_digest"] == engine["recipe_digest"]
    for name, path in {"models/a.onnx": "models/a.onnx", "b.fp16.onnx": ".trt/onnx/b.fp16.onnx"}.items():
        assert parts[name]["hashes"][0]["content"] == sha256(origin.path(path))
        assert parts[name]["licenses"] == [{"expression": "Apache-2.0"}]
    (half,) = (each for name, each in parts.items() if name.endswith("fp16.engine"))
    figures = half["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    (recorded,) = origin.receipt("b")["accuracy"]["onnx"]["outputs"].values()
    assert {"type": "onnx y elemwise error", "value": f"{recorded['error']:.6g}"} in figures


def test_it_says_how_each_engine_was_made(origin: Tree) -> None:
    data = read(origin)
    names = {each["bom-ref"]: each["name"] for each in data["components"]}
    (workflow,) = data["formulation"][0]["workflows"]
    made = {
        names[task["outputs"][0]["resource"]["ref"]].split("__")[0]: (
            task["name"],
            [names[each["resource"]["ref"]] for each in task["inputs"]],
        )
        for task in workflow["tasks"]
    }
    assert made == {
        "a": ("compile", ["models/a.onnx"]),
        "b.fp16.onnx": ("precision", ["models/a.onnx"]),
        "b": ("compile", ["b.fp16.onnx"]),
    }
    needs = {names.get(each["ref"]): each.get("dependsOn", []) for each in data["dependencies"]}
    assert [names[ref] for ref in needs["b.fp16.onnx"]] == ["models/a.onnx"]


def test_a_null_build_leaves_it_and_imports_nothing_for_it(made: Tree) -> None:
    before = made.snapshot("dist")
    run = made.scons("dist")
    assert (run.status, run.lines("WROTE"), made.snapshot("dist")) == (0, [], before)
    assert run.lines("IMPORTED") == ["IMPORTED []"]


def test_a_clone_elsewhere_writes_the_same_bytes(origin: Tree, tmp_path: Path) -> None:
    clone = origin.copy(tmp_path / "elsewhere" / "clone", "SConstruct", "models", "engines", ".trt")
    shutil.rmtree(clone.path(".trt/bom"))
    run = clone.scons("dist")
    assert (run.status, run.built, len(run.lines("WROTE"))) == (0, [], 2)
    assert [clone.path(name).read_bytes() for name in (CDX, SPDX)] == [
        origin.path(name).read_bytes() for name in (CDX, SPDX)
    ]
    assert str(tmp_path) not in clone.path(CDX).read_text() + clone.path(SPDX).read_text()


@pytest.mark.parametrize("name", [CDX, SPDX])
def test_one_that_was_modified_is_written_again(made: Tree, name: str) -> None:
    before = made.path(name).read_bytes()
    flip_last_bit(made.path(name))
    assert made.scons("-q", "dist").status == 1
    assert f"WOULD WRITE {CDX} because its files were modified" in made.scons("-n", "dist").out
    run = made.scons("dist")
    assert run.lines("WROTE") == [f"WROTE {CDX} (2 engines) because its files were modified"]
    assert made.path(name).read_bytes() == before


def test_a_changed_card_rewrites_it_and_no_engine(made: Tree) -> None:
    card = {**CARD, "license": "MIT"}
    declare(made, card, card)
    run = made.scons("dist")
    assert (run.status, run.reused) == (0, ["a", "b"])
    assert run.lines("WROTE") == [f"WROTE {CDX} (2 engines) because what it lists has changed"]
    assert '"expression": "MIT"' in made.path(CDX).read_text()


@pytest.mark.slow
def test_the_time_is_that_of_source_date_epoch(made: Tree) -> None:
    run = made.scons("dist", SOURCE_DATE_EPOCH="86400")
    assert (run.status, read(made)["metadata"]["timestamp"]) == (0, "1970-01-02T00:00:00Z")
    assert '"created": "1970-01-02T00:00:00Z"' in made.path(SPDX).read_text()
    wrong = made.scons("dist", SOURCE_DATE_EPOCH="now")
    assert wrong.status == 2
    assert "SOURCE_DATE_EPOCH=now: write a number of seconds since 1970" in wrong.out


def strip(tree: Tree, model: str, field: str) -> None:
    for path in tree.path(".trt/receipts").glob(f"{model}__*/*.json"):
        data = json.loads(path.read_text())
        del data[field]
        path.write_text(json.dumps(data))


REFUSED = {
    "a receipt without inputs": (
        lambda tree: strip(tree, "a", "inputs"),
        "its receipt does not name its input files; remove the engine and run `scons engines`",
    ),
    "two cards of one model": (
        lambda tree: declare(tree, CARD, {**CARD, "license": "MIT"}),
        "models/a.onnx: two engines declare different model_card for it; write one",
    ),
    "a wrong licence": (
        lambda tree: declare(tree, {"license": "free"}),
        "model_card license='free': not an SPDX licence expression",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_missing_or_wrong_is_refused_in_one_line(made: Tree, name: str) -> None:
    spoil, text = REFUSED[name]
    spoil(made)
    run = made.scons("dist")
    assert run.status == 2
    (line,) = (line for line in run.out.splitlines() if text in line)
    assert "SConstruct" in line


@pytest.mark.slow
def test_it_is_installed_and_verified_with_the_engines(made: Tree, tmp_path: Path) -> None:
    assert made.scons("install", f"DESTDIR={tmp_path}/image").status == 0
    installed = tmp_path / "image" / "engines"
    assert (installed / "manifest.json.cdx.json").read_bytes() == made.path(CDX).read_bytes()
    done = made.cli("verify", "--manifest", installed / "manifest.json", "--hardware", "rtx_portable")
    assert done.status == 0, done.out


@pytest.mark.slow
def test_it_can_be_left_out(made: Tree) -> None:
    script = made.path("SConstruct").read_text().replace("[a, b])\n", "[a, b], bom=False)\n", 1)
    made.path("SConstruct").write_text(script)
    for name in (CDX, SPDX):
        made.path(name).unlink()
    assert made.scons("dist").status == 0
    assert not made.path(CDX).exists()


def test_the_command_names_what_is_missing(made: Tree) -> None:
    listed = made.cli("bom", "dist/manifest.json")
    assert (listed.status, "model  models/a.onnx  3.1  Apache-2.0\n" in listed.out) == (0, True)
    done = made.cli("bom", "--check", "dist/manifest.json")
    time = "MISSING time: of dist/manifest.json.cdx.json; set SOURCE_DATE_EPOCH when it is written\n"
    assert (done.status, done.out) == (1, time)
    declare(made, {"version": "3.1"}, None)
    made.scons("dist")
    done = made.cli("bom", "--check", "dist/manifest.json")
    step = "write model_card=dict(license=…) of env.Engine"
    first = "a__sm80plus_cu13.0_rtx1.7_fp32.engine"
    assert f"MISSING licence: of {first} and 3 more; {step}\n" in done.out
    assert "MISSING version: of b__sm80plus_cu13.0_rtx1.7_fp16.engine and 1 more; " in done.out


def spoil(tree: Tree, name: str, old: str, new: str) -> None:
    text = tree.path(name).read_text()
    assert old in text
    tree.path(name).write_text(text.replace(old, new))


@pytest.mark.parametrize("name", [CDX, SPDX])
def test_the_command_refuses_a_wrong_digest(made: Tree, name: str) -> None:
    engine = made.engine("a")
    right = sha256(engine)
    spoil(made, name, right, "0" * 64)
    done = made.cli("bom", "--check", "dist/manifest.json")
    assert done.status == 1
    assert f"{name}: sha256 of {engine.name} is {'0' * 64}, in the manifest {right}" in done.err


DAMAGED = {
    "of another manifest": (lambda tree: spoil(tree, CDX, sha256(tree.path(CDX[:-9])), "1" * 64)),
    "No such file": (lambda tree: tree.path(SPDX).unlink()),
    "damaged (JSONDecodeError)": (lambda tree: tree.path(CDX).write_text("{")),
    "damaged (KeyError)": (lambda tree: tree.path(CDX).write_text("{}")),
    "damaged (AttributeError)": (lambda tree: tree.path(CDX).write_text('{"components": ["a"]}')),
}


@pytest.mark.parametrize("why", DAMAGED)
def test_the_command_refuses_a_damaged_bill(made: Tree, why: str) -> None:
    DAMAGED[why](made)
    done = made.cli("bom", "dist/manifest.json")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert why in done.err


SPOILED = ["licenses", "modelCard", "hashes", "version", "name", "supplier", "externalReferences"]


@pytest.mark.parametrize("field", SPOILED)
def test_a_bill_with_a_field_of_another_type_is_damaged(made: Tree, field: str) -> None:
    for value in (1, [1]):
        bill = read(made)
        next(each for each in bill["components"] if each["type"] == "machine-learning-model")[field] = value
        made.path(CDX).write_text(json.dumps(bill))
        with pytest.raises(HandoffError, match=r"cdx\.json: (damaged|sha256 of)"):
            load(str(made.path("dist/manifest.json")))


EXPORT = """
import shutil

def export(target):  # {}
    shutil.copyfile({!r}, target)
"""


def test_a_step_of_another_recipe_with_the_same_bytes_is_the_present_one(tmp_path: Path) -> None:
    """The engine is reused, and its receipt stays: the bill must name today's script and no former one."""
    tree = Tree(tmp_path / "tree")
    source = make_model(tree.path("source.onnx"))
    tree.write(
        """
        a = env.Engine("a", env.OnnxExport("made", "models/make.py:export"))
        env.EngineManifest("dist/manifest.json", a)
        """
    )
    bills, script = [], tree.path("models/make.py")
    for comment, built in (("one", ["a"]), ("two", []), ("one", [])):
        script.write_text(EXPORT.format(comment, str(source)))
        run = tree.scons("dist")
        assert (run.status, run.built) == (0, built), run.out
        names = [each["name"] for each in read(tree)["components"] if "/make.py" in f"/{each['name']}"]
        bills.append((tree.path(CDX).read_bytes(), tree.path(SPDX).read_bytes()))
        assert names
        assert all(sha256(script).encode() in bill for bill in bills[-1])
    assert bills[0] == bills[2] != bills[1]
    run = tree.scons("dist")
    assert "WROTE" not in run.out, run.out
    tree.path(CDX).unlink()  # the former receipt of the step is still there
    assert tree.scons("dist").status == 0
    assert (tree.path(CDX).read_bytes(), tree.path(SPDX).read_bytes()) == bills[2]
