"""Files that are written whole or not at all, and questions about paths that anybody may have written."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from .errors import OutputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path`, which takes its place when the block ends well.

    When the block fails, the temporary file goes and what was at `path` stays. Raises OutputError, naming `path`, for
    any OSError of the block or of the replacement (folder missing, no permission, disk full).
    """
    target = pathlib.Path(path)
    temporary: pathlib.Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
        temporary = pathlib.Path(name)
        yield temporary
        # mkstemp makes files that only their owner may read; what is published has the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
        temporary = None
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes `content` (text as UTF-8) to `path`, whole or not at all; raises OutputError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


# pathlib's own raise OSError for a name that is too long; names come from model files, too.


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file or folder of that name."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file of that name."""
    return os.path.isfile(path)  # noqa: PTH113


def is_dir(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder of that name."""
    return os.path.isdir(path)  # noqa: PTH112
