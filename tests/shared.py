"""Finds the material that tests compare with but the project does not ship; tests that need it skip without it."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(os.environ.get("SPARKNET_SHARED", pathlib.Path(__file__).resolve().parents[2] / "shared"))


def shared(path: str) -> pathlib.Path:
    """The file or folder `path` of the shared material (SPARKNET_SHARED, else ../shared); skips the test without it."""
    found = ROOT / path
    if not found.exists():
        pytest.skip(f"needs {found}")
    return found


def shared_names(path: str, pattern: str = "*") -> list[str]:
    """The names in the shared folder `path` that match, sorted; none when it is not there."""
    folder = ROOT / path
    return sorted(entry.name for entry in folder.glob(pattern)) if folder.is_dir() else []
