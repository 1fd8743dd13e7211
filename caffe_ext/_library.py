"""Loads oneDNN where the engine's run path does not reach it: after `pip install --target`, in editable installs."""

import importlib
import importlib.metadata
import pathlib

LIBRARY = "libdnnl.so.3"
DISTRIBUTION = "onednn-cpu-gomp"


def load_onednn(failure: ImportError) -> None:
    """Loads the library of oneDNN's wheel; `failure` is what the engine's own import raised.

    Raises an ImportError that says what to do when there is no engine beside this file, as in a checkout, or nothing to
    install it from; `failure` again when it is about something else.
    """
    if isinstance(failure, ModuleNotFoundError):
        raise ImportError(
            f"{pathlib.Path(__file__).parent} has no built engine: this is a checkout, which Python finds before the "
            "installed package. Work in another folder, start Python with -P, or build here: pip install -e ."
        ) from failure
    if LIBRARY not in str(failure):
        raise failure
    from . import _dlopen

    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == LIBRARY:
            _dlopen.load(str(file.locate()))
            return
    raise ImportError(
        f"{LIBRARY} was not found: pip install {DISTRIBUTION}==2023.2.0, or put the folder of your oneDNN 3 on "
        "LD_LIBRARY_PATH"
    ) from failure


try:
    importlib.import_module("._native", __package__)
except ImportError as error:
    load_onednn(error)
