"""The formats that can be written, by the schemes of their sources."""

from .write_databases import LevelDBWriter, LMDBWriter
from .write_hdf5 import HDF5Writer
from .write_images import ImagesWriter
from .write_tars import ImageNetWriter
from .writer import Writer

WRITERS: dict[str, type[Writer]] = {
    "hdf5": HDF5Writer,
    "imagenet": ImageNetWriter,
    "images": ImagesWriter,
    "leveldb": LevelDBWriter,
    "lmdb": LMDBWriter,
}
