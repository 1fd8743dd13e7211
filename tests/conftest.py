"""For all tests: what makes them give the same result each time, also on a busy machine."""

import os
import pathlib

import pytest
from hypothesis import settings

HERE = pathlib.Path(__file__).parent

# Read by libgomp when it is loaded: threads that wait do not spin, since a test machine is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Output is as wide as it is in a pipe: the processes of -n are told the width of a terminal.
os.environ.pop("COLUMNS", None)

# Runs leave no folders, but where a test asks for one.
os.environ["SPARKNET_RUNS"] = ""

# The same examples in every run, however long each takes. Other ones: pytest --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)  # before xdist, which looks at the marks then
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With -n 2 --dist loadgroup: what starts Spark runs in one process, a file at a time, all else in the other."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        folder, *rest = item.path.relative_to(HERE).parts
        item.add_marker(pytest.mark.xdist_group(folder if folder == "runtime" else "/".join([folder, *rest])))
