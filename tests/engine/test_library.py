"""Finding oneDNN where the engine's run path does not reach it."""

import importlib.metadata
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from sparknet_dsl.caffe_ext import _dlopen, _library

MISSING = ImportError("libdnnl.so.3: cannot open shared object file: No such file or directory")


def test_other_failures_pass_through() -> None:
    failure = ImportError("undefined symbol")
    with pytest.raises(ImportError) as raised:
        _library.load_onednn(failure)
    assert raised.value is failure


def test_a_checkout_without_an_engine_says_so() -> None:
    with pytest.raises(ImportError, match="start Python with -P, or build here: pip install -e"):
        _library.load_onednn(ModuleNotFoundError("No module named 'sparknet_dsl.caffe_ext._native'"))


def test_the_wheels_library_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(_dlopen, "load", loaded.append)
    try:
        importlib.metadata.distribution(_library.DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("oneDNN does not come from its wheel here")
    _library.load_onednn(MISSING)
    [path] = loaded
    assert pathlib.Path(path).name == "libdnnl.so.3" and pathlib.Path(path).is_file()


def test_without_the_wheel_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(ImportError, match="pip install onednn-cpu-gomp"):
        _library.load_onednn(MISSING)


def test_a_file_that_is_no_library() -> None:
    with pytest.raises(ImportError, match="cannot load /dev/null: "):
        _dlopen.load("/dev/null")


def test_import_from_anywhere(tmp_path: pathlib.Path) -> None:
    code = "import sparknet_dsl.caffe_ext as c; print(len(c.layer_type_list()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 16
