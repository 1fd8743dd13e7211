"""The formats that can be written, by the schemes of their sources."""

from .write_databases import LevelDBWriter, LMDBWriter
from .write_hdf5 import HDF5Writer
from .write_images import ImagesWriter
from .write_parquet import ParquetWriter
from .write_tars import ImageNetWriter, WebDatasetWriter
from .write_text import CSVWriter, LibSVMWriter
from .write_tfrecord import TFRecordWriter
from .writer import Writer

WRITERS: dict[str, type[Writer]] = {
    "csv": CSVWriter,
    "hdf5": HDF5Writer,
    "imagenet": ImageNetWriter,
    "images": ImagesWriter,
    "leveldb": LevelDBWriter,
    "libsvm": LibSVMWriter,
    "lmdb": LMDBWriter,
    "parquet": ParquetWriter,
    "tfrecord": TFRecordWriter,
    "webdataset": WebDatasetWriter,
}
