"""Check, compile and publish, where the steps disagree."""

from types import SimpleNamespace

import pytest

from scons_tensorrt.artifact.publish import Publication
from scons_tensorrt.artifact.receipt import Receipt
from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.build import build_engine as module
from scons_tensorrt.build.build_context import BuildContext
from scons_tensorrt.build.build_engine import build_engine
from scons_tensorrt.build.up_to_date import UpToDateResult

RECEIPT = Receipt("a.engine", "0" * 64, "1" * 64, 7, {}, {})


@pytest.mark.parametrize("pending", [True, False])
def test_what_is_no_more_unfinished_when_it_shall_be_finished_is_compiled(
    tmp_path, monkeypatch, pending: bool
) -> None:
    """Its bytes went between two looks: said to be reused, the old engine would have stood."""
    signature = SimpleNamespace(told=dict, product="tensorrt_rtx")
    spec = SimpleNamespace(
        told=dict,
        engine=tmp_path / "engines" / "a.engine",
        key=RECEIPT.key,
        ingredients={},
        filename="a.engine",
        hardware=SimpleNamespace(told=dict, signature=signature),
        accuracy=None,
        check=None,
        bring=lambda: None,
    )
    context = BuildContext(StateFolder(tmp_path / ".trt", tmp_path), None, None)
    monkeypatch.setattr(
        module, "check_up_to_date", lambda *_: UpToDateResult("unfinished", "", receipt=RECEIPT)
    )
    monkeypatch.setattr(module, "compile_engine", lambda *_: (RECEIPT, 1.0))
    monkeypatch.setattr(Publication, "pending", lambda *_: pending)
    monkeypatch.setattr(Publication, "commit", lambda *_: None)
    monkeypatch.setattr(Publication, "finish", lambda _: None)
    assert build_engine(spec, context).how == ("reused" if pending else "built")
