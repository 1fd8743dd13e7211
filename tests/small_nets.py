"""Small nets, and shards of made-up rows, for the tests of training."""

import pathlib

import numpy as np
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime.data import Column
from sparknet_dsl.runtime.feeding import Feed
from sparknet_dsl.runtime.shards import Shard, shard
from sparknet_dsl.runtime.worker import Job

COLUMNS = (Column("image", "uint8", (2, 6, 6)), Column("label", "uint8", ()))

SMALL = """
name: "Small"
layer {{ name: "rows" type: "Input" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ {transform} }}
  input_param {{ shape {{ dim: {batch} dim: 2 dim: {size} dim: {size} }} shape {{ dim: {batch} }} }} }}
layer {{ name: "rows" type: "Input" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ {transform} }}
  input_param {{ shape {{ dim: 7 dim: 2 dim: {size} dim: {size} }} shape {{ dim: 7 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  convolution_param {{ num_output: 3 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
{extra}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param {{ num_output: 4 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
"""
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" dropout_param { dropout_ratio: 0.5 } }'


def small_net(batch: int = 8, transform: str = "scale: 0.01", size: int = 6, extra: str = "") -> caffe_pb2.NetParameter:
    text = SMALL.format(batch=batch, transform=transform, size=size, extra=extra)
    return text_format.Parse(text, caffe_pb2.NetParameter())


def small_solver(**settings) -> caffe_pb2.SolverParameter:
    return caffe_pb2.SolverParameter(**{"base_lr": 0.1, "lr_policy": "fixed", "max_iter": 100, **settings})


def small_rows(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (rows, 2, 6, 6), np.uint8),
        "label": rng.integers(0, 4, rows, np.uint8),
    }


class SmallSource:
    """`rows` made-up rows, in every part the same wherever it is read."""

    def __init__(self, rows: int, seed: int = 0) -> None:
        self.rows = rows
        self.seed = seed
        self.columns = COLUMNS

    def read(self, partition, partitions, bad):
        whole = small_rows(self.rows, self.seed)
        yield {name: values[partition::partitions] for name, values in whole.items()}


def small_shard(folder: pathlib.Path, rows: int = 50, partition: int = 0, partitions: int = 1) -> Shard:
    source = SmallSource(rows)
    name = f"{rows}-{partition}-{partitions}"
    return shard("tests", name, COLUMNS, lambda bad: source.read(partition, partitions, bad), folder)


def job_solver(job: Job) -> caffe_ext.Solver:
    """The solver that workers make of `job`."""
    solver = caffe_pb2.SolverParameter.FromString(job.solver)
    net = caffe_pb2.NetParameter.FromString(job.train_net)
    return caffe_ext.Solver(solver, net, seed=job.seed)


def small_job(net: caffe_pb2.NetParameter, solver: caffe_pb2.SolverParameter, run: str = "run", **changes) -> Job:
    def feeds(phase: int) -> tuple[Feed, ...]:
        layer = next(layer for layer in net.layer if layer.include and layer.include[0].phase == phase)
        return Feed("data", "image", layer.transform_param.SerializeToString()), Feed("label", "label")

    settings = {
        "run": run,
        "train_net": net.SerializeToString(),
        "test_net": net.SerializeToString(),
        "solver": solver.SerializeToString(),
        "train": feeds(caffe_pb2.TRAIN),
        "test": feeds(caffe_pb2.TEST),
        "seed": 5,
        "threads": 1,
        "send_history": True,
    }
    return Job(**{**settings, **changes})
