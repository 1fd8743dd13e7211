"""One Spark for all tests that need one: starting it takes seconds."""

from collections.abc import Iterator

import pytest

from sparknet_dsl.runtime.spark import Cluster

SLOTS = 4


@pytest.fixture(scope="session")
def spark() -> Iterator[Cluster]:
    """A Spark application with four slots; `Cluster(..., context=spark.context)` joins it."""
    with Cluster(f"local[{SLOTS},4]", SLOTS) as cluster:
        yield cluster
