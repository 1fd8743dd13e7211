"""Files wherever they lie: on this machine, in an object store (s3://, gs://), on HDFS where libhdfs is.

What is not local goes through pyarrow's filesystems (extra `data`), which read ranges and try again what fails. A path
is a place, too. Credentials come from where the stores' own tools take them (environment, ~/.aws, the machine's
role), never from a URL: URLs end up in logs, events and snapshots.
"""

import datetime
import functools
import io
import os
import pathlib
import re
import stat
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from ...errors import DataError
from ...files import exists

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

    Buffer = bytearray | memoryview

# Read at a time from a store: a request costs tens of milliseconds, wherever it reads.
BLOCK = 4 << 20
# Requests for the same bytes, with pauses that double, before a store counts as out of reach.
ATTEMPTS = 6
SCHEMES = ("s3", "s3a", "s3n", "gs", "gcs", "hdfs", "viewfs", "file")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# The part of a URL that names somebody; a secret may hold a slash.
_KEYS = re.compile(r"(?<=://)(?:(?![^/@]*:\d+(?:/|$))[^/@]*:[^@]*|[^/@]*)@")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class Found(NamedTuple):
    """A file: its place, and its size in bytes."""

    place: str
    size: int


def is_url(place: str) -> bool:
    """Whether `place` is a URL, not a path."""
    return _URL.match(place) is not None


def shown(place: str) -> str:
    """`place` as messages may show it: without keys or passwords."""
    return _KEYS.sub("", place)


def check_keys(place: str) -> None:
    """Raises DataError for a URL with a user or keys in it."""
    if shown(place) != place:
        raise DataError(
            f"{shown(place)}: the URL held a user, or keys, which would end up in logs and snapshots; give them as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, in ~/.aws, or by the machine's role"
        )


def open_place(place: str) -> BinaryIO:
    """Opens a file for reading, at any position; of a remote one only the ranges asked for are fetched.

    Raises DataError, as reading the file does: what is missing, out of reach or not allowed.
    """
    local = local_path(place)
    if local is not None:
        try:
            return local.open("rb")
        except OSError as error:
            raise DataError(f"{local} cannot be read: {error.strerror or error}") from error
    return cast(BinaryIO, io.BufferedReader(_Ranges(open_arrow(place), place), BLOCK))


def open_arrow(place: str) -> Any:
    """Opens a file as pyarrow's own readers want it, which read several ranges at a time (a NativeFile).

    Raises DataError; reading raises OSError, of which `failed` makes a DataError.
    """
    local = local_path(place)
    try:
        if local is not None:
            from pyarrow.fs import LocalFileSystem

            return LocalFileSystem().open_input_file(str(local))
        system, path = _system(place)
        return system.open_input_file(path)
    except OSError as error:
        raise failed(place, error) from error


def local_path(place: str) -> pathlib.Path | None:
    """The path of a place on this machine, `~` expanded; None: it is elsewhere."""
    match = _URL.fullmatch(place)
    if match is None:
        return pathlib.Path(os.path.expanduser(place))  # noqa: PTH111 - pathlib's may raise
    if match[1].lower() == "file":
        return pathlib.Path("/" + urllib.parse.unquote(match[2]).partition("/")[2])
    return None


def find(place: str, suffixes: Sequence[str] = ()) -> list[Found]:
    """The files that `place` names, sorted: a file, a pattern (`*`, `?`, `[a-z]`, `**`, `{0..9}`, `{a,b}`) or a folder.

    In a folder, and the folders in it, those that end in one of `suffixes` (all, when none are given), names that begin
    with a dot or underscore left out, as Hadoop does. Raises DataError: there are none, out of reach.
    """
    check_keys(place)
    found: dict[str, Found] = {}
    if place and not is_url(place):
        # Workers have another working directory.
        place = os.path.abspath(os.path.expanduser(place))  # noqa: PTH100, PTH111 - pathlib's may raise
    for each in [place] if exists(place) else expand(place):
        found |= {file.place: file for file in _find(each, suffixes)}
    return [found[name] for name in sorted(found)]


def expand(pattern: str) -> Iterator[str]:
    """Every text that a pattern with braces stands for: `{a,b}` is either, `{00..12}` every number of two digits."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    numbers = _RANGE.fullmatch(match[1])
    if numbers:
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        choices = [f"{number:0{width}}" for number in range(int(numbers[1]), int(numbers[2]) + 1)]
    else:
        choices = match[1].split(",")
    for choice in choices:
        yield from expand(pattern[: match.start()] + choice + pattern[match.end() :])


def _find(place: str, suffixes: Sequence[str]) -> list[Found]:
    if not place:
        raise DataError("a file, folder or URL is wanted, and none was named")
    base, pattern = _base(place)
    if not pattern:
        whole = _status(place)
        if isinstance(whole, int):
            return [Found(place, whole)]
        base = place.rstrip("/") or "/"
    files = sorted(_files(base))
    if pattern:
        matching = re.compile(_translated(pattern))
        files = [file for file in files if matching.fullmatch(file[0])]
    else:
        files = [file for file in files if not re.search(r"(^|/)[._]", file[0]) and _ends(file[0], suffixes)]
    if not files:
        wanted = f"no file ending in {' or '.join(suffixes)}" if suffixes and not pattern else "no file"
        raise DataError(f"{shown(place)}: there is {wanted}{' that matches' if pattern else ' in this folder'}")
    return [Found(f"{base.rstrip('/')}/{name}" if base else name, size) for name, size in files]


def _ends(name: str, suffixes: Sequence[str]) -> bool:
    return not suffixes or name.lower().endswith(tuple(suffixes))


def _base(place: str) -> tuple[str, str]:
    """A place as the folder before its first wildcard, and the pattern below; an empty pattern: it has none."""
    parts = place.split("/")
    first = next((index for index, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    if first == len(parts) or (exists(place)):
        return place, ""
    folder = "/".join(parts[:first])
    return folder or ("/" if place.startswith("/") else ""), "/".join(parts[first:])


def _translated(pattern: str) -> str:
    """A pattern as a regular expression in which `*` and `?` stay within a folder."""
    tokens = re.findall(r"\*\*/|\*+|\?|\[[^\]]+\]|.", pattern, re.DOTALL)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        meaning.get(token) or (token.replace("[!", "[^") if len(token) > 1 else re.escape(token)) for token in tokens
    )


def _status(place: str) -> int | None:
    """A file's size; None for a folder. Raises DataError: there is neither."""
    local = local_path(place)
    if local is not None:
        try:
            found = local.stat()
        except (OSError, ValueError) as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", error)
            raise DataError(f"{local.absolute()} {reason}") from error
        return None if stat.S_ISDIR(found.st_mode) else found.st_size
    system, path = _system(place)
    from pyarrow.fs import FileType

    try:
        info = system.get_file_info(path)
    except OSError as error:
        raise failed(place, error) from error
    if info.type == FileType.NotFound:
        raise DataError(f"{shown(place)} does not exist")
    return None if info.type == FileType.Directory else int(info.size)


def _files(base: str) -> Iterator[tuple[str, int]]:
    """Name, from `base` on, and size of each file in a folder and the folders in it; none where there is no folder."""
    local = local_path(base)
    if local is not None:
        for folder, _, names in os.walk(local):
            for name in names:
                file = pathlib.Path(folder, name)
                yield file.relative_to(local).as_posix(), file.stat().st_size
        return
    system, path = _system(base)
    from pyarrow.fs import FileSelector, FileType

    try:
        infos = system.get_file_info(FileSelector(path, allow_not_found=True, recursive=True))
    except OSError as error:
        raise failed(base, error) from error
    for info in infos:
        # Some tools make an object that stands for the folder.
        if info.type == FileType.File and not info.path.endswith("/"):
            yield info.path[len(path.rstrip("/")) + 1 :], int(info.size)


class _Ranges(io.RawIOBase):
    """A remote file, as Python's own buffer wants one."""

    def __init__(self, file: Any, place: str) -> None:
        self._file = file
        self._place = place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:  # type: ignore[override]
        try:
            content = self._file.read(len(buffer))
        except OSError as error:
            raise failed(self._place, error) from error
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _system(place: str) -> tuple["FileSystem", str]:
    """The filesystem of a URL, and the path in it."""
    check_keys(place)
    match = _URL.fullmatch(place)
    assert match is not None
    scheme, rest = match[1].lower(), match[2]
    if scheme not in SCHEMES:
        raise DataError(
            f"{place}: files are read from paths and from {', '.join(f'{name}://' for name in SCHEMES)}; what else "
            "Spark has jars for is read as a DataFrame, Trainer.fit(spark.read...)"
        )
    bucket, _, _ = rest.partition("/")
    if not bucket and scheme != "hdfs":
        raise DataError(f"{place}: a bucket is wanted, {scheme}://bucket/path")
    try:
        if scheme.startswith("s3"):
            return _s3(bucket if _needs_region() else ""), rest
        if scheme.startswith("g"):
            return _gs(), rest
        return _hdfs(f"{scheme}://{bucket}"), rest[len(bucket) :]
    except ImportError as error:
        raise DataError(f"{place}: reading URLs takes pyarrow: pip install 'sparknet-dsl[data]'") from error
    except (OSError, ValueError) as error:
        raise failed(place, error) from error


def _needs_region() -> bool:
    return not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _endpoint())


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


# A filesystem holds the connections: one for all files that a process reads.
@functools.cache
def _s3(bucket: str) -> "FileSystem":
    """Amazon's store, or the one at AWS_ENDPOINT_URL; with `bucket`, in whatever region that one is."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if bucket:
        region = resolve_s3_region(bucket)
    return S3FileSystem(
        region=region,
        endpoint_override=_endpoint(),
        anonymous=os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes"),
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        connect_timeout=10,
        request_timeout=60,
    )


@functools.cache
def _gs() -> "FileSystem":
    from pyarrow.fs import GcsFileSystem

    # Google's own variable for a server that stands in for theirs, which asks for no credentials.
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    scheme, _, host = (emulator or "").rpartition("://")
    return GcsFileSystem(
        anonymous=emulator is not None,
        endpoint_override=host or None,
        scheme=scheme or ("http" if emulator else "https"),
        retry_time_limit=datetime.timedelta(minutes=2),
    )


@functools.cache
def _hdfs(url: str) -> "FileSystem":
    from pyarrow.fs import HadoopFileSystem

    return HadoopFileSystem.from_uri(url)


def failed(place: str, error: Exception) -> DataError:
    """The error for what pyarrow says (`error`) of `place`, with what may help."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    # Only the end of what pyarrow says is about the cause.
    reason = re.sub(r"^(?:When [^:]*: )+", "", reason)
    text = str(error)
    help = "is it whole, and the store up?"
    if isinstance(error, FileNotFoundError) or "NOT_FOUND" in text or "NO_SUCH" in text:
        return DataError(f"{shown(place)} does not exist")
    if any(sign in text for sign in ("ACCESS_DENIED", "HTTP status 403", "INVALID_ACCESS_KEY", "SIGNATURE", "UNAUTH")):
        help = (
            "credentials are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws (AWS_PROFILE) or the "
            "machine's role, on every worker; AWS_NO_SIGN_REQUEST=1 reads public buckets without"
        )
    elif place.startswith(("hdfs", "viewfs")):
        help = (
            "hdfs:// takes Hadoop's libhdfs (HADOOP_HOME or ARROW_LIBHDFS_DIR) and its jars (CLASSPATH) on every "
            "machine; without, read a DataFrame: Trainer.fit(spark.read...)"
        )
    elif "NETWORK_CONNECTION" in text or "curl" in text:
        help = f"is {_endpoint() or 'the store'} up, and may this machine reach it?"
    return DataError(f"{shown(place)} cannot be read: {reason}; {help}")
