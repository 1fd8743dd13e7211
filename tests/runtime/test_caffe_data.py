"""Caffe's own data layers become sources: shapes, options, and paths from the folder of the model that names them."""

import pathlib

import h5py
import numpy as np
import pytest
from source_files import coded, datum, noise, read, write_lmdb

from sparknet_dsl.errors import DataError, ModelError
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime.command import compile_model
from sparknet_dsl.runtime.feeds import Fed, data_layers, feed_net
from sparknet_dsl.runtime.plan import phase_net

LOSS = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def fed(folder: pathlib.Path, layer: str, train: str | None = None) -> tuple[list[list[int]], Fed]:
    """The shapes that the layer's tops get, and what feeds them, of a model in `folder` that reads `layer`."""
    head = 'name: "d" top: "data" top: "label" include { phase: TRAIN }'
    (folder / "net.prototxt").write_text(f"layer {{ {head} {layer} }} {LOSS}")
    model = compile_model(str(folder / "net.prototxt"), {}, train, None)
    net = phase_net(model.net, caffe_pb2.SolverParameter(), "TRAIN")
    (layer_of,) = data_layers(net, "TRAIN")
    found = feed_net(net, "TRAIN", train, str(folder))
    assert found is not None
    return [list(shape.dim) for shape in layer_of.input_param.shape], found


def test_databases(tmp_path):
    images = noise(6)
    write_lmdb(tmp_path / "raw", [datum(image, number) for number, image in enumerate(images)])
    write_lmdb(tmp_path / "coded", [datum(coded(image), number) for number, image in enumerate(images)])
    data = 'type: "Data" data_param {{ source: "{0}" batch_size: 4 backend: LMDB }} transform_param {{ {1} }}'
    for name in ("raw", "coded"):
        shapes, found = fed(tmp_path, data.format(name, ""))
        assert shapes == [[4, 3, 10, 12], [4]]
        assert (found.uri, len(read(found.source)["label"])) == (f"lmdb:{name}", 6)
        assert fed(tmp_path, data.format(name, "crop_size: 8"))[0] == [[4, 3, 8, 8], [4]]
    shapes, found = fed(tmp_path, data.format("coded", "force_gray: true"))
    assert (shapes, found.uri) == ([[4, 1, 10, 12], [4]], "lmdb:coded?gray=true")
    assert fed(tmp_path, data.format("coded", "force_color: true"))[1].uri == "lmdb:coded?color=true"
    # A name of the caller's own takes the model's place, and is one from the working directory.
    shapes, found = fed(tmp_path, data.format("none", ""), f"lmdb:{tmp_path}/raw")
    assert (shapes, found.uri) == ([[4, 3, 10, 12], [4]], f"lmdb:{tmp_path}/raw")


def test_lists_of_images(tmp_path):
    (tmp_path / "all & more").mkdir()
    for number, image in enumerate(noise(3)):
        (tmp_path / "all & more" / f"{number}.png").write_bytes(coded(image))
    (tmp_path / "list.txt").write_text("0.png 4\n1.png 0\n2.png 1\n")
    data = 'type: "ImageData" image_data_param {{ source: "list.txt" root_folder: "all & more/" batch_size: 2 {0} }}'
    shapes, found = fed(tmp_path, data.format("shuffle: true"))
    assert shapes == [[2, 3, 10, 12], [2]]
    assert read(found.source) == {"image": [coded(image) for image in noise(3)], "label": [4, 0, 1]}
    shapes, found = fed(tmp_path, data.format("new_height: 6 new_width: 8 is_color: false"))
    assert shapes == [[2, 1, 6, 8], [2]]
    assert read(found.source)["image"][0].shape == (1, 6, 8)


def test_hdf5_files_feed_tops_by_name(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        # In the order of their names, the columns are not that of the tops.
        file["label"] = np.arange(5.0)
        file["data"] = np.zeros((5, 7), np.float32)
        file["another"] = np.zeros((5, 2), np.float32)
    (tmp_path / "list.txt").write_text("a.h5\n")
    shapes, found = fed(tmp_path, 'type: "HDF5Data" hdf5_data_param { source: "list.txt" batch_size: 2 }')
    assert shapes == [[2, 7], [2]]
    assert [(feed.top, feed.column) for feed in found.feeds] == [("data", "data"), ("label", "label")]
    assert read(found.source)["label"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (
            'type: "Data" data_param { source: "none" batch_size: 2 backend: LMDB }',
            DataError,
            "there is no database .*/none.*; or name other data: --train SRC",
        ),
        (
            'type: "ImageData" image_data_param { source: "none.txt" batch_size: 2 }',
            DataError,
            r"none.txt cannot be read: .*; or name other data: --train SRC",
        ),
        (
            'type: "HDF5Data" hdf5_data_param { source: "none.txt" batch_size: 2 }',
            DataError,
            r"cannot read .*/none.txt: .*; or name other data: --train SRC",
        ),
        ('type: "WindowData" window_data_param { source: "w.txt" batch_size: 2 }', ModelError, "S308|not known"),
    ],
)
def test_what_is_not_there_is_one_clear_error(tmp_path, layer, error, message):
    with pytest.raises(error, match=message):
        fed(tmp_path, layer)
