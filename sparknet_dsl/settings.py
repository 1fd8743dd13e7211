"""`solver (...)` and `spark (...)`: their messages, and what does not go together in them."""

import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

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
    "cosine": ("max_iter",),  # ours
}
# Ours is AdamW; the others are Caffe's.
SOLVER_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam", "AdamW")
# Fields that decay an average, which a value of 1 would never let move.
DECAYS: dict[str, tuple[str, ...]] = {
    "RMSProp": ("rms_decay",),
    "AdaDelta": ("momentum",),
    "Adam": ("momentum", "momentum2"),
    "AdamW": ("momentum", "momentum2"),
}

# Settings of the averaging loop: what they may be, and how that is said.
_LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("tau", "workers", "rounds"), (lambda value: value >= 1, "at least 1")),
    **dict.fromkeys(("test_every", "snapshot_every"), (lambda value: value >= 0, "at least 0")),
    "tau_schedule": (
        lambda value: re.fullmatch(r"auto|\d+(,\d+:\d+)*", value) is not None,
        '"auto", or a schedule such as "50,1000:100": 50 iterations, from iteration 1000 on 100',
    ),
    "averaging_share": (lambda value: 0 < value < 1, "a share of the time, between 0 and 1"),
    "outer_rate": (lambda value: 0 < value < math.inf, "above 0; 1 is the plain mean"),
    "outer_momentum": (lambda value: 0 <= value < 1, "from 0 to below 1"),
    "moving_rate": (lambda value: 0 <= value <= 1, "from 0 (no elastic averaging) to 1"),
}


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
    for arg in args:
        fits, wants = _LIMITS.get(arg.name or "", (None, ""))
        if fits is not None and arg.name is not None and not fits(getattr(message, arg.name)):
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
    _check_warmup(solver, span, fields, diagnostics)
    _check_rule(solver, span, fields, diagnostics)
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


def _check_warmup(
    solver: caffe_pb2.SolverParameter, span: Span | None, fields: Mapping[str, Span], diagnostics: Diagnostics
) -> None:
    """What bends the rate beside lr_policy: the warm-up, and the floor that "cosine" ends at."""
    place = fields.get("warmup_iter", span)
    if solver.warmup_iter < 0:
        diagnostics.error("S401", "`warmup_iter` is 0 or more", place)
    elif solver.warmup_iter and solver.HasField("max_iter") and solver.warmup_iter > solver.max_iter:
        diagnostics.error(
            "S401",
            f"the warm-up of {solver.warmup_iter} iterations is longer than max_iter ({solver.max_iter})",
            place,
            "the rate would never be lr_policy's",
        )
    start = fields.get("warmup_start_lr", span)
    if solver.warmup_start_lr < 0:
        diagnostics.error("S401", "`warmup_start_lr` is negative", start, "training would climb")
    elif solver.HasField("warmup_start_lr") and not solver.warmup_iter:
        diagnostics.warn("S401", "`warmup_start_lr` without `warmup_iter` does nothing", start)
    floor = fields.get("min_lr", span)
    if solver.min_lr < 0:
        diagnostics.error("S401", "`min_lr` is negative", floor, "training would climb")
    elif solver.HasField("min_lr") and solver.lr_policy != "cosine":
        diagnostics.warn("S401", f'`min_lr` does nothing with lr_policy="{solver.lr_policy}"', floor, "cosine uses it")
    elif solver.min_lr > solver.base_lr:
        diagnostics.error("S401", "`min_lr` is above `base_lr`", floor, "the rate would rise")


def _check_rule(
    solver: caffe_pb2.SolverParameter, span: Span | None, fields: Mapping[str, Span], diagnostics: Diagnostics
) -> None:
    """What the update rule of `type` makes of its own fields."""
    for name in DECAYS.get(solver.type, ()):
        if not 0 <= getattr(solver, name) < 1:
            diagnostics.error(
                "S401",
                f"`{name}` of {solver.type} lies from 0 to below 1",
                fields.get(name, span),
                "it decays an average",
            )
    if solver.type == "AdaDelta" and not solver.momentum:
        diagnostics.warn(
            "S401",
            "AdaDelta without `momentum`, its decay, remembers one gradient only",
            fields.get("type", span),
            "momentum=0.95 is usual",
        )
    if solver.type in ("AdaGrad", "RMSProp") and solver.momentum:
        diagnostics.error(
            "S401", f"{solver.type} takes no `momentum`", fields.get("momentum", span), "Caffe refuses it"
        )
    place = fields.get("regularization_type", span)
    if solver.regularization_type not in ("L1", "L2"):
        diagnostics.error("S401", f'no regularization_type "{solver.regularization_type}"', place, "L2 or L1")
    elif solver.type == "AdamW" and solver.regularization_type == "L1":
        diagnostics.error(
            "S401", "AdamW decays the weights themselves: it knows no L1", place, "leave it out, or use Adam"
        )
