"""`sparknet-data get`: data sets from where they are published, checked by the checksums published with them.

A download goes on where an earlier one was broken off (`NAME.part`), and takes its name once its checksum is right.
"""

import gzip
import hashlib
import http.client
import pathlib
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from ...errors import DataError, OutputError, UsageError
from ...files import atomic_path
from ..progress import Bar, progress
from .published import DATA_SETS, DataSet, File

TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 3  # at one server, each from where the last one ended
BLOCK = 1 << 18


class _UnreachableError(Exception):
    """A server does not answer, or not with the file: another one may."""


def get(name: str, folder: str | None = None, url: str | None = None) -> str:
    """Fetches the data set `name` into `folder` (data/NAME), from the folder `url` if given; gives the source to name.

    What lies there with the right checksum stays as it is. Raises UsageError for another name, DataError where nothing
    can be fetched (which says what to put where) or a checksum is wrong, OutputError.
    """
    if name not in DATA_SETS:
        raise UsageError(f"there is no data set `{name}`; there are {', '.join(DATA_SETS)}")
    data = DATA_SETS[name]
    into = pathlib.Path(folder or f"data/{name}").expanduser()
    try:
        into.mkdir(parents=True, exist_ok=True)
        missing = [file for file in data.files if not _there(file, into)]
        mirrors = [url.rstrip("/")] if url else data.mirrors
        if missing and not mirrors:
            raise DataError(_by_hand(data, missing, into, f"{name} is given only to those who sign in at {data.page}"))
        for index, file in enumerate(missing):
            try:
                _fetch(file, mirrors, into)
            except _UnreachableError as error:
                raise DataError(_by_hand(data, missing[index:], into, str(error))) from error
        for file in data.files:
            _unpack(file, into)
    except OSError as error:
        raise OutputError(f"cannot write into {into}: {error.strerror or error}") from error
    return f"{data.scheme}:{into}"


def _by_hand(data: DataSet, files: Sequence[File], into: pathlib.Path, reason: str) -> str:
    names = "".join(f"\n  {file.name}  MD5 {file.md5}" for file in files)
    places = " or ".join([*data.mirrors, data.page])
    return (
        f"{reason}\nWhere there is a network, fetch from {places}{names}\n"
        f"and put {'it' if len(files) == 1 else 'them'} into {into.absolute()}; then run this again: it checks and "
        "unpacks what is there"
    )


# ---- what lies there ----


def _there(file: File, into: pathlib.Path) -> bool:
    """Whether the file, or what is in it, lies in the folder; raises DataError for one that was not published so."""
    path = into / file.name
    if file.unpacked and not path.exists():
        path = path.with_suffix("")
    if not path.exists():
        return bool(file.members) and all((into / member).is_file() for member in file.members)
    wanted = file.md5 if path.name == file.name else file.unpacked
    with progress(f"checking {path.name}", path.stat().st_size, bytes=True) as bar:
        found = _md5(_blocks(path, bar))
    if found == wanted or (path.suffix == ".gz" and file.unpacked and _md5_unpacked(path) == file.unpacked):
        return True
    raise DataError(
        f"{path} is not the file that was published: its MD5 is {found}, expected {wanted}; remove it, then run this "
        "again"
    )


def _md5_unpacked(path: pathlib.Path) -> str:
    try:
        return _md5(_blocks(path, Bar(), gzip.open))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return "of something that cannot be unpacked"


def _md5(blocks: Iterator[bytes]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: pathlib.Path, bar: Bar, opened: Callable[..., IO[Any]] = open) -> Iterator[bytes]:
    with opened(path, "rb") as content:
        while block := content.read(BLOCK):
            bar.advance(len(block))
            yield block


# ---- the network ----


def _fetch(file: File, mirrors: Sequence[str], into: pathlib.Path) -> None:
    """Downloads a file; raises _UnreachableError where no mirror gives it, DataError where it is something else."""
    unfinished = into / f"{file.name}.part"
    reasons = []
    for mirror in mirrors:
        url = f"{mirror}/{file.name}"
        try:
            resumed = _download(url, unfinished)
            found = _md5(_blocks(unfinished, Bar()))
            if found != file.md5 and resumed:
                # What an earlier call left may have been of something else.
                unfinished.unlink()
                _download(url, unfinished)
                found = _md5(_blocks(unfinished, Bar()))
        except _UnreachableError as error:
            reasons.append(str(error))
            continue
        if found != file.md5:
            unfinished.unlink()
            raise DataError(f"{url} gave something else than was published: its MD5 is {found}, expected {file.md5}")
        unfinished.replace(into / file.name)
        return
    raise _UnreachableError("; ".join(reasons))


def _download(url: str, unfinished: pathlib.Path) -> bool:
    """Downloads `url`, in some attempts; gives whether an earlier call had begun. Raises _UnreachableError."""
    begun = have = _size(unfinished)
    left = ATTEMPTS
    while True:
        try:
            _receive(url, unfinished, have)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                return begun > 0  # all of it is there
            raise _UnreachableError(f"{url}: {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            left -= 1
            if not left or _size(unfinished) == have:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                raise _UnreachableError(f"{url} cannot be fetched: {reason}") from error
            have = _size(unfinished)
        else:
            return begun > 0


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, unfinished: pathlib.Path, have: int) -> None:
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url}: an http:// or https:// address is wanted")
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        # A server may not know ranges, and begin anew.
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            unfinished.open("ab" if have else "wb") as file,
            progress(url.rpartition("/")[2], total, have, bytes=True) as bar,
        ):
            while block := answer.read(BLOCK):
                file.write(block)
                bar.advance(len(block))
                have += len(block)
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)


# ---- archives ----


def _unpack(file: File, into: pathlib.Path) -> None:
    """Takes the members that are needed out of an archive, those that are not there yet."""
    missing = [member for member in file.members if not (into / member).is_file()]
    if not missing:
        return
    try:
        with tarfile.open(into / file.name) as archive:
            for entry in archive:
                if entry.name not in missing or not entry.isfile():
                    continue
                content = archive.extractfile(entry)
                assert content is not None
                (into / entry.name).parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(into / entry.name) as temporary, temporary.open("wb") as out:
                    while block := content.read(BLOCK):
                        out.write(block)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{into / file.name} cannot be unpacked: {error}") from error
    for member in missing:
        if not (into / member).is_file():
            raise DataError(f"{into / file.name} has no {member}")
