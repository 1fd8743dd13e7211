"""`delta:PLACE`: a Delta Lake table, read without Spark: its log says which Parquet files it has now, or had.

The log is read once, by the driver (the `deltalake` package); the workers read the files of that version.
"""

import os
from collections.abc import Mapping
from typing import ClassVar

from ...errors import DataError
from .base import Phase, SourceURI
from .parquet import Parquet
from .places import check_keys, is_url, shown
from .tables import EXTRA, Table, require_pyarrow

# What a reader of the files alone would get wrong.
FEATURES = {
    "deletionVectors": "deleted rows are marked beside the files",
    "columnMapping": "its columns have other names",
}


class Delta(Parquet):
    """The rows of a Delta table, of the version that is the newest when it is opened, or of `version=`."""

    OPTIONS: ClassVar[Mapping[str, str]] = {**Table.OPTIONS, "version": "N: the table as it was then"}

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        del phase
        require_pyarrow(uri.scheme)
        try:
            from deltalake import DeltaTable
            from deltalake.exceptions import DeltaError
        except ImportError as error:
            raise DataError(f"`delta:` takes deltalake: {EXTRA}") from error
        version = uri.options.get("version")
        if version is not None and not version.isdigit():
            raise DataError(f"delta:{uri.path}: version={version}: write version=3, the number of a version")
        if not uri.path:
            raise DataError("`delta:` wants a table's folder, delta:FOLDER or delta:s3://bucket/table")
        check_keys(uri.path)
        place = uri.path if is_url(uri.path) else os.path.abspath(os.path.expanduser(uri.path))  # noqa: PTH100, PTH111
        http = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        try:
            table = DeltaTable(place, None if version is None else int(version), {"AWS_ALLOW_HTTP": str(http).lower()})
            features = set(table.protocol().reader_features or ())
            files = table.file_uris()
        except (DeltaError, OSError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"{shown(place)} cannot be read as a Delta table: {reason}") from error
        for feature in sorted(features & FEATURES.keys()):
            raise DataError(f"{shown(place)}: {FEATURES[feature]} ({feature}): read it with Spark, Trainer.fit(df)")
        if not files:
            raise DataError(f"{shown(place)} has no rows: no files in version {table.version()}")
        self._open(uri, sorted(files))
