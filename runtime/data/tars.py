"""Tar files of which each worker reads its part: whole tars where there are many, else every so many-th member."""

import io
import tarfile
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

from ...errors import DataError
from .places import Found, open_place, shown

# With fewer tars for each worker, whole ones would leave some with too much: members are dealt out.
ENOUGH = 8


class Member(NamedTuple):
    """A file in a tar: the tar's place, its name, its bytes."""

    tar: str
    name: str
    content: bytes

    @property
    def key(self) -> str:
        """What messages call it."""
        return f"{self.name} in {shown(self.tar)}"


def members(tars: Sequence[Found], partition: int, partitions: int) -> Iterator[Member]:
    """The files in one of `partitions` parts of the `tars`, in their order.

    Of tars that are not a part's own nothing is read; where members are dealt out, the headers of all, and of the local
    ones no more than those. Raises DataError: no tar, cut short.
    """
    if len(tars) >= ENOUGH * partitions:
        for tar in tars[partition::partitions]:
            yield from _members(tar.place, 0, 1, 0)
        return
    count = 0
    for tar in tars:
        count = yield from _members(tar.place, partition, partitions, count)


def _members(place: str, partition: int, partitions: int, count: int) -> Generator[Member, None, int]:
    """Those whose turn it is, `count` members having been dealt out before; returns how many have been then."""
    with open_place(place) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (entry := tar.next()) is not None:
                    # It keeps all entries otherwise.
                    tar.members = []  # type: ignore[attr-defined]
                    if not entry.isfile():
                        continue
                    mine = count % partitions == partition
                    count += 1
                    if mine:
                        content = tar.extractfile(entry)
                        assert content is not None
                        yield Member(place, entry.name, content.read())
                if file.seek(0, io.SEEK_END) < tar.offset + tarfile.BLOCKSIZE:
                    raise DataError(f"{shown(place)} is cut short: it has no end; copy it again")
        except tarfile.TarError as error:
            raise DataError(f"{shown(place)} is no tar that can be read, or is cut short: {error}") from error
    return count
