"""For all tests: threads that wait do not spin, since a test machine is shared (read by libgomp when it is loaded)."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
