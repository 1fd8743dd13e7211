"""Which source and which columns feed a net's data layers, and what is said where nothing fits."""

import pytest
from google.protobuf import text_format
from source_files import coded, datum, noise, write_lmdb

from sparknet_dsl.errors import DataError, ModelError
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime.feeds import data_layers, feed_net, no_source
from sparknet_dsl.runtime.plan import checkpoint_name, phase_net, plain_solver


def layer(
    tops: str = "data label",
    shapes: str = "4,1,8,8 4",
    source: str = "",
    transform: str = "",
    include: str = "",
    name: str = "rows",
) -> str:
    dims = [" ".join(f"dim: {size}" for size in shape.split(",")) for shape in shapes.split()]
    return (
        f'layer {{ name: "{name}" type: "Input" {" ".join(f"top: {top!r}" for top in tops.split())} {include} '
        f"input_param {{ {' '.join(f'shape {{ {each} }}' for each in dims)} }} "
        + (f"transform_param {{ {transform} }} " if transform else "")
        + (f'data_param {{ source: "{source}" }}' if source else "")
        + " }"
    )


def net(*layers: str) -> caffe_pb2.NetParameter:
    return text_format.Parse("\n".join(layers), caffe_pb2.NetParameter())


@pytest.mark.parametrize(
    ("tops", "shapes", "given", "expected"),
    [
        ("data label", "4,1,8,8 4", "digits:", {"data": "image", "label": "label"}),  # by position
        ("label image", "4 4,1,8,8", "digits:", {"label": "label", "image": "image"}),  # by name
        ("y x", "4 4,1,8,8", "digits:?columns=label,image", {"y": "label", "x": "image"}),
        ("x", "4,1,8,8", "digits:", {"x": "image"}),
        ("data label", "4,1,8,8 4,1,1,1", "digits:", {"data": "image", "label": "label"}),
    ],
)
def test_columns_find_their_tops(tops, shapes, given, expected):
    fed = feed_net(net(layer(tops, shapes)), "TRAIN", given)
    assert {feed.top: feed.column for feed in fed.feeds} == expected


def test_the_columns_that_the_model_names_serve_another_source_too():
    model = net(layer("y x", "4 4,1,8,8", source="?columns=label,image"))
    fed = feed_net(model, "TRAIN", "digits:")
    assert [feed.column for feed in fed.feeds] == ["label", "image"]


def test_transformations_apply_to_the_first_top():
    (image, label) = feed_net(net(layer(transform='scale: 0.5 mean_file: "m"')), "TRAIN", "digits:").feeds
    assert caffe_pb2.TransformationParameter.FromString(image.transform).scale == 0.5
    assert image.mean_file == "m"
    assert (label.transform, label.mean_file) == (None, "")


def test_the_source_that_the_model_names_and_the_one_that_replaces_it(tmp_path):
    model = net(layer(source="digits:"))
    assert feed_net(model, "TRAIN", None).uri == "digits:"
    with pytest.raises(DataError, match="does not exist"):
        feed_net(model, "TRAIN", f"mnist:{tmp_path}/none")


def test_tops_of_several_layers_are_fed_from_one_source():
    model = net(layer("data", "4,1,8,8", "digits:"), layer("label", "4", "digits:", name="labels"))
    assert [(feed.top, feed.column) for feed in feed_net(model, "TRAIN", None).feeds] == [
        ("data", "image"),
        ("label", "label"),
    ]
    other = net(layer("data", "4,1,8,8", "digits:"), layer("label", "4", "mnist:/x", name="labels"))
    with pytest.raises(ModelError, match="layer `rows` reads digits: but layer `labels` reads mnist:/x"):
        feed_net(other, "TRAIN", None)


def test_layers_of_the_other_phase_and_stage_do_not_count():
    solver = text_format.Parse('train_state { stage: "here" }', caffe_pb2.SolverParameter())
    model = net(
        layer(include="include { phase: TRAIN stage: 'here' }", name="mine"),
        layer(include="include { phase: TRAIN stage: 'there' }", name="stage"),
        layer(include="include { phase: TEST }", name="test"),
    )
    assert [each.name for each in data_layers(phase_net(model, solver, "TRAIN"), "TRAIN")] == ["mine"]
    assert [each.name for each in data_layers(phase_net(model, solver, "TEST"), "TEST")] == ["test"]


@pytest.mark.parametrize("source", ["", "windows:examples/mnist", "examples/mnist_lmdb"])
def test_no_source_to_read(source):
    model = net(layer(source=source))
    assert feed_net(model, "TRAIN", None) is None
    message = no_source("lenet.snet", data_layers(model, "TRAIN"), "TRAIN")
    assert "data layer `rows` (TRAIN) of lenet.snet names " + (source or "no source") in message
    assert "say --train SRC, for example --train mnist:DIR" in message


@pytest.mark.parametrize(
    ("tops", "shapes", "transform", "uri", "message"),
    [
        (
            "data label",
            "4,1,28,28 4",
            "",
            "digits:",
            r"`image` of digits: has rows of 1×8×8, but top `data` .* 1×28×28",
        ),
        (
            "data label",
            "4,1,8,8 4,10",
            "",
            "digits:",
            r"`label` .* has rows of one number, but top `label` .* wants 10",
        ),
        ("data label", "4,1,9,9 4", "crop_size: 9", "digits:", "crops 9×9 from images of 8×8"),
        ("a b c", "4,1,8,8 4 4", "", "digits:", "has the columns image, label: too few for the tops a, b, c"),
        ("data label", "4,1,8,8 4", "", "digits:?columns=image,class", "no column `class`: .* has the columns"),
        ("data label", "4,1,8,8 4", "", "digits:?columns=image", r"1 columns \(image\) cannot feed 2 tops"),
    ],
)
def test_data_that_does_not_fit_the_net(tops, shapes, transform, uri, message):
    with pytest.raises(DataError, match=message):
        feed_net(net(layer(tops, shapes, transform=transform)), "TRAIN", uri)


def test_a_models_own_source_is_looked_for_beside_the_model(tmp_path):
    write_lmdb(tmp_path / "data" / "db", [datum(image, 0) for image in noise(3)])
    model = net(layer(shapes="4,3,10,12 4", source="lmdb:data/db"))
    assert feed_net(model, "TRAIN", None, str(tmp_path)).uri == "lmdb:data/db"
    with pytest.raises(DataError, match=r"there is no database .*/data/db: .*; or name other data: --train SRC"):
        feed_net(model, "TRAIN", None)


def test_encoded_images_fit_where_their_channels_do(tmp_path):
    images = [coded(image) for image in noise(2)]
    uri = f"lmdb:{write_lmdb(tmp_path / 'db', [datum(image, 0) for image in images])}?color=true"
    for shapes, transform in (("4,3,10,12 4", ""), ("4,3,8,8 4", "crop_size: 8")):
        assert feed_net(net(layer(shapes=shapes, transform=transform)), "TRAIN", uri).feeds[0].column == "image"
    with pytest.raises(DataError, match=r"`image` of .* has rows of 3×8×8, but top `data` .* wants 1×8×8"):
        feed_net(net(layer(shapes="4,1,8,8 4")), "TRAIN", uri)


def test_a_crop_decides_the_shape():
    fed = feed_net(net(layer(shapes="4,1,6,6 4", transform="crop_size: 6")), "TRAIN", "digits:")
    assert fed.feeds[0].column == "image"


@pytest.mark.parametrize(
    ("prefix", "name", "expected"),
    [
        ("examples/mnist/lenet", "LeNet", "lenet"),
        ("", "My Net/1", "My_Net_1"),
        ("snapshots/", "x", "snapshots"),
        ("", "", "net"),
    ],
)
def test_the_name_of_snapshots(prefix, name, expected):
    assert checkpoint_name(caffe_pb2.SolverParameter(snapshot_prefix=prefix), name) == expected


def test_the_solver_of_workers_trains_and_does_nothing_else():
    solver = text_format.Parse(
        'net: "x" test_iter: 3 test_interval: 5 display: 1 snapshot: 7 snapshot_prefix: "a/b" snapshot_format: HDF5 '
        'solver_mode: GPU base_lr: 0.25 lr_policy: "fixed" momentum: 0.5 iter_size: 2 weights: "w" clip_gradients: 3',
        caffe_pb2.SolverParameter(),
    )
    kept = text_format.Parse(
        'base_lr: 0.25 lr_policy: "fixed" momentum: 0.5 iter_size: 2 clip_gradients: 3', caffe_pb2.SolverParameter()
    )
    assert plain_solver(solver) == kept
