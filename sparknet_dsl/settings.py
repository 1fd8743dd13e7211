"""`solver (...)` and `spark (...)`: their messages, and what does not go together in them."""

import pathlib
from collections.abc import Callable, Mapping

from . import ast
from .diagnostics import Diagnostics, Failed, Span, closest, did_you_mean
from .fields import Fields
from .proto import caffe_pb2, sparknet_pb2
from .resolve import Scope
from .values import evaluate_args

LoadSolver = Callable[[ast.Constant], "tuple[caffe_pb2.SolverParameter, pathlib.Path]"]

# What each lr_policy needs (Caffe takes an absent number for 0 and goes on).
LR_POLICIES: dict[str, tuple[str, ...]] = {
    "fixed": (),
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma", "stepvalue"),
    "poly": ("power", "max_iter"),
    "sigmoid": ("gamma", "stepsize"),
}
SOLVER_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


def solver_of(
    node: ast.Solver, scope: Scope, load: LoadSolver, has_net: bool, diagnostics: Diagnostics
) -> tuple[caffe_pb2.SolverParameter, dict[str, Span]] | None:
    """The solver's message and where each field stands; None when it cannot be made."""
    message = caffe_pb2.SolverParameter()
    try:
        args = evaluate_args(node.args, scope.values, diagnostics)
        if node.base is not None:
            message.CopyFrom(load(node.base)[0])
            if has_net:
                # It named the net that it was written for, and this file's is another.
                for field in ("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param"):
                    message.ClearField(field)
        Fields(diagnostics, scope.values).set_all(message, args, "SolverParameter")
    except Failed:
        return None
    return message, {arg.name: arg.value.span for arg in args if arg.name}


def spark_of(node: ast.Spark, scope: Scope, diagnostics: Diagnostics) -> sparknet_pb2.SparkParameter | None:
    """The averaging loop's settings; None when they cannot be made."""
    message = sparknet_pb2.SparkParameter()
    try:
        args = evaluate_args(node.args, scope.values, diagnostics)
        Fields(diagnostics, scope.values).set_all(message, args, "SparkParameter")
    except Failed:
        return None
    least = {"tau": 1, "workers": 1, "rounds": 1, "test_every": 0, "snapshot_every": 0}
    for arg in args:
        if arg.name in least and getattr(message, arg.name) < least[arg.name]:
            wants = f"at least {least[arg.name]}"
            diagnostics.error("S401", f"`{arg.name}` is {wants}", arg.value.span)
    return message


def check_solver(
    solver: caffe_pb2.SolverParameter,
    span: Span | None,
    fields: Mapping[str, Span],
    has_test: bool,
    diagnostics: Diagnostics,
) -> None:
    """Reports what is missing or contradicts itself."""
    if not solver.HasField("base_lr"):
        diagnostics.error("S401", "the solver has no `base_lr`", span, "Caffe would train with a rate of 0")
    elif solver.base_lr < 0:
        diagnostics.error("S401", "`base_lr` is negative", fields.get("base_lr", span), "training would climb")
    policy = solver.lr_policy
    place = fields.get("lr_policy", span)
    if not policy:
        diagnostics.error("S401", "the solver has no `lr_policy`", span, 'lr_policy="fixed" keeps the rate as it is')
    elif policy not in LR_POLICIES:
        near = did_you_mean(closest(policy, LR_POLICIES))
        diagnostics.error(
            "S403", f'no lr_policy "{policy}"', place, near, notes=[f"policies: {', '.join(LR_POLICIES)}"]
        )
    else:
        for needed in LR_POLICIES[policy]:
            given = len(solver.stepvalue) > 0 if needed == "stepvalue" else solver.HasField(needed)
            if not given:
                takes = "the rate would be wrong from the first step on"
                if needed == "stepsize":
                    takes = "Caffe would divide by a step size of 0"
                elif needed == "stepvalue":
                    takes = "Caffe would never change the rate"
                elif needed in ("gamma", "power"):
                    takes = f"Caffe would take 0 for {needed}"
                diagnostics.error("S401", f'lr_policy="{policy}" needs `{needed}`', place, takes)
    if solver.type not in SOLVER_TYPES:
        near = did_you_mean(closest(solver.type, SOLVER_TYPES))
        types = ", ".join(SOLVER_TYPES)
        diagnostics.error(
            "S403", f'no solver type "{solver.type}"', fields.get("type", span), near, notes=[f"types: {types}"]
        )
    if solver.iter_size < 1:
        diagnostics.error("S401", "`iter_size` is at least 1", fields.get("iter_size", span))
    if solver.test_interval and not solver.test_iter:
        diagnostics.error(
            "S402", "`test_interval` without `test_iter`", fields.get("test_interval", span), "Caffe refuses it"
        )
    if solver.test_iter and not has_test:
        diagnostics.error(
            "S402",
            "the solver tests, but the net has no source in TEST",
            fields.get("test_iter", span),
            help="mark a source @test, or leave out test_iter and test_interval",
        )
