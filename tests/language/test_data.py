"""Data layers that Spark feeds, the shapes they get, and the deploy variant."""

import pytest

from sparknet_dsl import Model, compile_text
from sparknet_dsl.errors import ModelError
from sparknet_dsl.proto import caffe_pb2

TAIL = """
  data -> ip: InnerProduct(10)
  ip, label -> loss: SoftmaxWithLoss
"""


def compiled(sources: str, tail: str = TAIL, **options: object) -> Model:
    return compile_text(f"net N {{ {sources} {tail} }}", **options)


def shapes(layer: caffe_pb2.LayerParameter) -> list[list[int]]:
    return [list(shape.dim) for shape in layer.input_param.shape]


def error(sources: str, **options: object) -> tuple[str, str]:
    with pytest.raises(ModelError) as caught:
        compiled(sources, **options)
    found = [one for one in caught.value.diagnostics if one.severity == "error"]
    return found[0].code, found[0].message


def test_rdd_layers_become_input_layers() -> None:
    layer = compiled(
        'data, label: RDDData([[5, 3, 8, 8], [5]], source="digits:", scale=0.5, mirror=true) @train'
    ).net.layer[0]
    assert layer == caffe_pb2.LayerParameter(
        name="data",
        type="Input",
        top=["data", "label"],
        include=[caffe_pb2.NetStateRule(phase=caffe_pb2.TRAIN)],
        transform_param=caffe_pb2.TransformationParameter(scale=0.5, mirror=True),
        data_param=caffe_pb2.DataParameter(source="digits:"),
        input_param=caffe_pb2.InputParameter(
            shape=[caffe_pb2.BlobShape(dim=[5, 3, 8, 8]), caffe_pb2.BlobShape(dim=[5])]
        ),
    )


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ('source="parquet:/x", columns=["image", "label"]', "parquet:/x?columns=image,label"),
        ('columns=["image", "label"]', "?columns=image,label"),
    ],
)
def test_columns_are_part_of_the_source(fields: str, source: str) -> None:
    layer = compiled(f"data, label: RDDData([[5, 3, 8, 8], [5]], {fields})").net.layer[0]
    assert layer.data_param.source == source


def test_columns_are_names() -> None:
    assert error("data, label: RDDData([[5, 3], [5]], columns=[1])")[0] == "S105"
    assert error('data, label: RDDData([[5, 3], [5]], columns=["a,b", "c"])')[0] == "S105"


@pytest.mark.parametrize(
    ("type_and_fields", "source"),
    [
        ('Data("some/db", batch_size=5, backend=LMDB)', "lmdb:some/db"),
        ('Data("some/db", batch_size=5)', "leveldb:some/db"),
        ('Layer(type="ImageData", image_data_param={source="list.txt", batch_size=5})', "images:list.txt"),
        ('Layer(type="HDF5Data", hdf5_data_param={source="list.txt", batch_size=5})', "hdf5:list.txt"),
    ],
)
def test_caffes_data_layers_are_replaced(type_and_fields: str, source: str) -> None:
    layer = compiled(f"data, label: {type_and_fields} is [_, 3, 8, 8]").net.layer[0]
    assert (layer.type, layer.data_param.source, shapes(layer)) == ("Input", source, [[5, 3, 8, 8], [5]])


def test_caffes_data_layers_can_be_kept() -> None:
    model = compiled('data, label: Data("db", batch_size=5) is [_, 3, 8, 8], [_]', keep_data_layers=True)
    assert model.net.layer[0].type == "Data"
    assert model.reports["TRAIN"].blobs["ip"] == (5, 10)


def test_kept_layers_may_leave_their_shape_open() -> None:
    model = compiled('data, label: Data("db", batch_size=5)', keep_data_layers=True)
    assert model.reports["TRAIN"].blobs["ip"] in (None, ())


def test_rows_of_the_source_supply_shapes() -> None:
    rows = {"TRAIN": [(3, 32, 32), ()]}
    layer = compiled('data, label: Data("db", batch_size=5)', data_shapes=rows).net.layer[0]
    assert shapes(layer) == [[5, 3, 32, 32], [5]]
    layer = compiled('data, label: Data("db", batch_size=5, crop_size=28)', data_shapes=rows).net.layer[0]
    assert shapes(layer) == [[5, 3, 28, 28], [5]]
    layer = compiled('data, label: Data("db", batch_size=5) is [_, _, 32, 32]', data_shapes=rows).net.layer[0]
    assert shapes(layer) == [[5, 3, 32, 32], [5]]


def test_cropping_and_means_supply_shapes() -> None:
    layer = compiled('data, label: Data("db", batch_size=5, crop_size=28, mean_value=[1, 2, 3])').net.layer[0]
    assert shapes(layer) == [[5, 3, 28, 28], [5]]
    assert error('data, label: Data("db", batch_size=5, crop_size=28)')[0] == "S308"


@pytest.mark.parametrize(
    "sources",
    ["data, label: RDDData([[5, 1, 28, 28], [5]])", 'data, label: Data("db", batch_size=5) is [_, 1, 28, 28]'],
)
def test_rows_of_another_shape_are_refused(sources: str) -> None:
    code, message = error(sources, data_shapes={"TRAIN": [(3, 32, 32), ()]})
    assert code == "S310"
    assert "5×1×28×28" in message
    assert "5×3×32×32" in message


def test_a_batch_size_must_be_known() -> None:
    code, message = error("data, label: RDDData", data_shapes={"TRAIN": [(3, 32, 32), ()]})
    assert (code, "batch size" in message) == ("S308", True)


def test_each_phase_has_its_own_rows() -> None:
    sources = 'data, label: Data("a", batch_size=5) @train data, label: Data("b", batch_size=7) @test'
    rows = {"TRAIN": [(3, 8, 8), ()], "TEST": [(3, 8, 8), ()]}
    model = compiled(sources, data_shapes=rows)
    assert [shapes(layer)[0][0] for layer in model.net.layer[:2]] == [5, 7]
    assert model.reports["TEST"].blobs["ip"] == (7, 10)


def test_deploy_keeps_what_its_values_need() -> None:
    model = compiled(
        "data, label: RDDData([[5, 3, 8, 8], [5]], scale=0.5) @train data, label: RDDData([[7, 3, 8, 8], [7]]) @test",
        """
        data -> ip: InnerProduct(10) -> relu: ReLU! -> dropped: Dropout! @train
        dropped -> ip2: InnerProduct(3)
        ip2, label -> accuracy: Accuracy @test
        ip2, label -> loss: SoftmaxWithLoss
        ip2 -> prob: Softmax @deploy
        """,
    )
    assert model.deploy is not None
    assert [(layer.name, layer.type) for layer in model.deploy.layer] == [
        ("data", "Input"),
        ("ip", "InnerProduct"),
        ("relu", "ReLU"),
        ("ip2", "InnerProduct"),
        ("prob", "Softmax"),
    ]
    source = model.deploy.layer[0]
    assert (list(source.top), shapes(source)) == (["data"], [[7, 3, 8, 8]])
    assert not source.HasField("transform_param")
    assert not any(layer.include for layer in model.deploy.layer)
    assert "prob" not in [layer.name for layer in model.net.layer]
    assert model.reports["DEPLOY"].blobs["prob"] == (7, 3)


def test_an_explicit_input_of_the_deploy_variant() -> None:
    model = compiled(
        "data, label: RDDData([[5, 3, 8, 8], [5]]) data: Input([1, 3, 8, 8]) @deploy",
        TAIL + "ip -> prob: Softmax @deploy",
    )
    assert model.deploy is not None
    assert [layer.name for layer in model.deploy.layer] == ["data", "ip", "prob"]
    assert shapes(model.deploy.layer[0]) == [[1, 3, 8, 8]]


def test_without_deploy_layers_there_is_no_deploy_variant() -> None:
    assert compiled("data, label: RDDData([[5, 3, 8, 8], [5]])").deploy is None


def test_deploy_with_kept_data_layers_has_an_input() -> None:
    model = compiled(
        'data, label: Data("db", batch_size=5) is [_, 3, 8, 8]',
        TAIL + "ip -> prob: Softmax @deploy",
        keep_data_layers=True,
    )
    assert model.deploy is not None
    assert model.deploy.layer[0].type == "Input"
    assert model.net.layer[0].type == "Data"
