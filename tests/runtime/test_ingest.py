"""What is made of the partitions' counts, and of the records that could not be read."""

import pytest

from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import Bad, BadRecords
from sparknet_dsl.runtime.ingest import Ingested


def bad(*keys: str, count: int = 0) -> BadRecords:
    return BadRecords("skip", count or len(keys), [Bad(key, "cut short") for key in keys])


def test_partitions_are_added_up():
    parts = [(3, bad("a", count=9000)), (0, bad()), (4, bad(*map(str, range(10)), count=4000))]
    found = Ingested.of("images:x", "TRAIN", parts)
    assert (found.rows, found.total, found.bad.count) == ((3, 0, 4), 7, 13_000)
    event = found.skipped
    assert event is not None
    assert (event.count, event.rows, event.source, len(event.first)) == (13_000, 7, "images:x", 10)
    assert event.first[0] == {"key": "a", "reason": "cut short"}
    assert Ingested.of("images:x", "TRAIN", [(1, bad())]).skipped is None


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([(0, bad()), (0, bad())], "images:x has no rows"),
        ([(0, bad("a")), (0, bad("b"))], "has no rows, all 2 records of it are bad: a: cut short; b: cut short"),
        ([(1, bad()), (0, bad())], "has 1 rows, too few for 2 workers"),
        ([(5, bad()), (0, bad())], "gives worker 2 of 2 no rows"),
    ],
)
def test_too_few_rows(parts, message):
    with pytest.raises(DataError, match=message):
        Ingested.of("images:x", "TRAIN", parts).check_workers()


def test_only_the_first_bad_records_are_kept_and_none_are_let_pass():
    found = BadRecords("skip")
    for number in range(10_000):
        found.add(str(number), "cut short")
    assert (found.count, [key for key, _ in found.first]) == (10_000, list("0123456789"))
    with pytest.raises(DataError, match="7: cut short; --bad-records skip leaves such records out"):
        BadRecords().add("7", "cut short")
