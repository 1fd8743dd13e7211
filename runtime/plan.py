"""What is to be trained, as the engine and the loop take it."""

import dataclasses
import pathlib
import re

from ..proto import caffe_pb2
from .data import Phase
from .feeds import Fed


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be trained, looked at as far as that goes without Spark.

    name          of the net
    folder        of the model's file: a mean_file is looked for there, too
    net, solver   the model's messages; the net has the layers of both phases
    train, test   what feeds them; test None: no tests
    notes         what the user should know of it
    """

    name: str
    folder: pathlib.Path
    net: caffe_pb2.NetParameter
    solver: caffe_pb2.SolverParameter
    train: Fed
    test: Fed | None
    notes: tuple[str, ...] = ()


def checkpoint_name(solver: caffe_pb2.SolverParameter, net: str) -> str:
    """The name that a run's snapshots begin with: the solver's snapshot_prefix without folder, else the net's name."""
    name = pathlib.PurePath(solver.snapshot_prefix).name or net or "net"
    return re.sub(r"[^\w.+-]+", "_", name)


def phase_net(
    net: caffe_pb2.NetParameter, solver: caffe_pb2.SolverParameter, phase: Phase, test: int = 0
) -> caffe_pb2.NetParameter:
    """`net` in `phase`, with the levels and stages that the solver's train_state, or test_state `test`, adds."""
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    if phase == "TRAIN":
        result.state.MergeFrom(solver.train_state)
        result.state.phase = caffe_pb2.TRAIN
    else:
        if test < len(solver.test_state):
            result.state.MergeFrom(solver.test_state[test])
        result.state.phase = caffe_pb2.TEST
    return result


def plain_solver(solver: caffe_pb2.SolverParameter) -> caffe_pb2.SolverParameter:
    """`solver` without nets, tests, display and snapshots: those are the loop's."""
    result = caffe_pb2.SolverParameter()
    result.CopyFrom(solver)
    for field in (
        *("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param"),
        *("train_state", "test_state", "test_iter", "test_interval", "test_initialization"),
        *("display", "average_loss", "snapshot", "snapshot_prefix", "snapshot_after_train"),
        *("snapshot_format", "snapshot_diff", "weights"),
        *("solver_mode", "device_id"),
    ):
        result.ClearField(field)
    return result
