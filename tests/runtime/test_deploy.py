"""The net that predicts, from models with and without a deploy variant."""

import pytest

from sparknet_dsl import compile_file, compile_text
from sparknet_dsl.errors import ModelError
from sparknet_dsl.runtime import deploy

HEAD = """
net n {{
  data, label: RDDData([[8, 3, 6, 6], [8]], scale=0.5, mirror=true) @train
  {test}
  data -> conv: Convolution(4, 3) -> relu: ReLU! -> ip: InnerProduct(5)
  {end}
}}
"""
TEST = "data, label: RDDData([[9, 3, 6, 6], [9]], scale=0.25) @test"
LOSS = "ip, label -> accuracy: Accuracy @test\n ip, label -> loss: SoftmaxWithLoss"


def net(test: str = TEST, end: str = LOSS):
    return deploy.deploy_net(compile_text(HEAD.format(test=test, end=end)))


def test_losses_become_what_they_are_of() -> None:
    found = net()
    assert [layer.type for layer in found.layer] == ["Input", "Convolution", "ReLU", "InnerProduct", "Softmax"]
    assert deploy.scores(found) == ("ip", "prob", 5)
    assert deploy.inputs(found) == {"data": (3, 6, 6)}
    assert found.layer[0].transform_param.scale == 0.25
    one = "ip -> one: InnerProduct(1)\n one, label -> loss: "
    sigmoid = net(end=f"{one} SigmoidCrossEntropyLoss", test="").layer[-1]
    assert (sigmoid.type, list(sigmoid.top)) == ("Sigmoid", ["prob"])


def test_without_a_test_phase_the_transformation_is_that_of_training_but_for_mirror() -> None:
    transform = net(test="", end="ip, label -> loss: SoftmaxWithLoss").layer[0].transform_param
    assert transform.scale == 0.5 and not transform.HasField("mirror")


def test_the_deploy_variant_keeps_the_transformation() -> None:
    found = net(end=LOSS + "\n ip -> best: Softmax @deploy")
    assert deploy.scores(found) == ("ip", "best", 5)
    assert found.layer[0].transform_param.scale == 0.25


@pytest.mark.parametrize("name", ["lenet", "googlenet", "caffenet", "resnet50", "adult", "digits"])
def test_models_of_the_library(name: str) -> None:
    found = deploy.deploy_net(compile_file(name))
    assert deploy.scores(found).classes == {"lenet": 10, "digits": 10, "adult": 2}.get(name, 1000)
    assert deploy.outputs(found) == [deploy.scores(found).probability]


def test_side_branches_are_not_the_answer() -> None:
    side = "ip, label -> loss1: SoftmaxWithLoss(loss_weight=0.3)\n ip -> ip2: InnerProduct(5)\n "
    found = net(end=side + "ip2, label -> loss2: SoftmaxWithLoss")
    assert deploy.scores(found).raw == "ip2" and deploy.outputs(found) == ["loss1/prob", "prob"]


def test_only_what_is_needed_is_kept() -> None:
    found = deploy.pruned(net(), ["conv"])
    assert [layer.name for layer in found.layer] == ["data", "conv", "relu"]
    with pytest.raises(ModelError, match="no blob `fc7`; it has data, conv, ip, prob"):
        deploy.pruned(net(), ["fc7"])


def test_batches_of_another_size() -> None:
    found = deploy.resized(net(), 3)
    assert deploy.shape_of(found, "prob") == (3, 5)
    found.layer.add(name="other", type="Input", top=["other"]).input_param.shape.add(dim=[7, 2])
    with pytest.raises(ModelError, match="data 3, other 7"):
        deploy.resized(found, 4)


def test_what_classifies_nothing() -> None:
    with pytest.raises(ModelError, match="has no Softmax"):
        deploy.scores(net(end="ip -> one: InnerProduct(1)\n one, label -> loss: EuclideanLoss", test=""))
    with pytest.raises(ModelError, match="one probability for each"):
        deploy.scores(net(end="conv -> prob: Softmax @deploy"))
