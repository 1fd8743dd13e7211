"""For all tests: what makes them give the same result each time, also on a busy machine."""

import os

from hypothesis import settings

# Read by libgomp when it is loaded: threads that wait do not spin, since a test machine is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Runs leave no folders, but where a test asks for one.
os.environ["SPARKNET_RUNS"] = ""

# The same examples in every run, however long each takes. Other ones: pytest --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
