"""Reads LMDB files, `data.mdb`, without LMDB's own library.

That one maps the file into memory and trusts it: on a damaged file it ends the process. Here everything read is
checked, nothing is locked or written, and a file may be read by many at once. Only what Caffe's databases have is
known: the main database, sorted by its keys, one value each, in the format of 64-bit machines.
"""

import os
import pathlib
import struct
import weakref
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import DataError

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = struct.Struct("<QHHHH")  # of a page: its number, padding, flags, lower and upper end of the free space
_NODE = struct.Struct("<HHHH")  # low and high part of a size (of a page number: with the flags), flags, size of the key
_META = struct.Struct("<IIQQ")  # magic, version, address, size of the map
_TREE = struct.Struct("<IHHQQQQQ")  # page size (first tree), flags, depth, pages of three kinds, entries, root
_TAIL = struct.Struct("<QQ")  # last page, transaction
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 0x01, 0x02, 0x04, 0x08
_BIG_DATA = 0x01  # of a node: the value lies in overflow pages
_EMPTY = 2**64 - 1
_DEEPEST = 32
_PAGE_SIZES = [1 << bits for bits in range(9, 17)]


class _Meta(NamedTuple):
    page_size: int
    flags: int
    depth: int
    root: int
    last_page: int
    transaction: int


class LMDBFile:
    """The records of an LMDB file; iterating gives (key, value) in the order of the keys.

    Raises DataError, naming the file, when it is no LMDB file, cut short or damaged.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        # A net that is dropped has nobody who would close what it reads.
        self._close = weakref.finalize(self, os.close, self._file)
        try:
            self._meta = self._newest_meta()
        except DataError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._close()

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self.every(0, 1)

    def every(self, first: int, step: int) -> Iterator[tuple[bytes, bytes]]:
        """Record number `first` and every `step`-th after it; of the others' values those on own pages are not read."""
        if self._meta.root == _EMPTY:
            return
        last = None
        for number, (key, node) in enumerate(self._records(self._meta.root, self._meta.depth)):
            # Also ends what a damaged tree would make endless.
            if last is not None and key <= last:
                raise self._damaged("its keys are out of order")
            last = key
            if number >= first and (number - first) % step == 0:
                yield key, self._value(*node)

    def _records(self, number: int, depth: int) -> Iterator[tuple[bytes, tuple[bytes, int, int, int]]]:
        """Each record's key, and what `_value` wants."""
        page, flags = self._page(number)
        if not 1 <= depth <= _DEEPEST or bool(flags & _LEAF) != (depth == 1):
            raise self._damaged(f"page {number} is not at its place in the tree")
        try:
            _, _, _, lower, _ = _HEADER.unpack_from(page)
            for (offset,) in struct.iter_unpack("<H", page[_HEADER.size : lower]):
                low, high, node_flags, key_size = _NODE.unpack_from(page, offset)
                start = offset + _NODE.size + key_size
                if flags & _BRANCH:
                    yield from self._records(low | high << 16 | node_flags << 32, depth - 1)
                else:
                    yield page[start - key_size : start], (page, start, low | high << 16, node_flags)
        except struct.error as error:
            raise self._damaged(f"page {number} has entries beyond its end") from error

    def _value(self, page: bytes, start: int, size: int, flags: int) -> bytes:
        if flags & ~_BIG_DATA:
            raise self._damaged(f"a record has the flags {flags:#x}")
        if flags == 0:
            value = page[start : start + size]
        else:
            if start + 8 > len(page):
                raise self._damaged("a record reaches beyond its page")
            (number,) = struct.unpack_from("<Q", page, start)
            self._page(number, _OVERFLOW)
            value = self._read(number * self._meta.page_size + _HEADER.size, size)
        if len(value) < size:
            raise self._damaged("a record reaches beyond its page")
        return value

    def _page(self, number: int, kinds: int = _BRANCH | _LEAF) -> tuple[bytes, int]:
        """A page and its flags."""
        if number > self._meta.last_page:
            raise self._damaged(f"there is no page {number}")
        page = self._read(number * self._meta.page_size, self._meta.page_size)
        own, _, flags, _, _ = _HEADER.unpack_from(page)
        if own != number or not flags & kinds:
            raise self._damaged(f"page {number} is none of the kind")
        return page, flags

    def _read(self, offset: int, size: int) -> bytes:
        try:
            content = os.pread(self._file, size, offset)
        except OSError as error:
            raise DataError(f"cannot read {self._path}: {error.strerror or error}") from error
        if len(content) < size:
            raise self._damaged("a page lies beyond its end")
        return content

    def _newest_meta(self) -> _Meta:
        # The two meta pages are written in turn.
        first = self._read_meta(0)
        meta = max((first, self._read_meta(first.page_size)), key=lambda meta: meta.transaction)
        if meta.flags != 0:
            raise DataError(f"{self._path} is an LMDB of another kind than Caffe's: its flags are {meta.flags:#x}")
        size, whole = os.fstat(self._file).st_size, (meta.last_page + 1) * meta.page_size
        if size < whole:
            raise DataError(f"{self._path} is cut short: it has {size} bytes of {whole}; copy it again")
        return meta

    def _read_meta(self, offset: int) -> _Meta:
        try:
            page = os.pread(self._file, _HEADER.size + 136, offset)
            flags = _HEADER.unpack_from(page)[2]
            magic, version, _, _ = _META.unpack_from(page, at := _HEADER.size)
            page_size = _TREE.unpack_from(page, at := at + _META.size)[0]
            _, tree_flags, depth, _, _, _, _, root = _TREE.unpack_from(page, at := at + _TREE.size)
            last_page, transaction = _TAIL.unpack_from(page, at + _TREE.size)
        except (OSError, struct.error) as error:
            raise DataError(f"{self._path} is no LMDB file, or is cut short") from error
        if not flags & _META_PAGE or magic != _MAGIC or version != _VERSION or page_size not in _PAGE_SIZES:
            raise DataError(f"{self._path} is no LMDB file")
        return _Meta(page_size, tree_flags, depth, root, last_page, transaction)

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"the LMDB {self._path} is damaged: {reason}; copy it again")
