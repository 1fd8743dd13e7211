"""The compiler: a file's text through a row of passes to the messages that Caffe, the engine and Spark work with."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import ast, check, expand, graph, library, prototxt, reparse, resolve, settings, unused, variants
from .diagnostics import Diagnostic, Diagnostics, Exhausted, Failed, Source, Span, closest, did_you_mean
from .files import exists, is_file
from .layers import BlockUse, Network
from .parse import parse
from .proto import caffe_pb2, sparknet_pb2, text

if TYPE_CHECKING:
    from .check import NetReport

_logger = logging.getLogger(__name__)


@dataclass
class Model:
    """A compiled model.

    `net` is what Caffe users call train_val: both phases in one message. `deploy` exists where the model marks a layer
    @deploy. `solver.net` is the path that its author wrote, or absent: `net` is what it trains. `spark` has the
    settings of the averaging loop, `path` the file, None for a text. `diagnostics` holds warnings; `reports` the
    engine's dry run (shapes, parameters, multiply-adds) by phase: TRAIN, TEST, DEPLOY. `keeps_data_layers` tells
    whether they are Caffe's own still.
    """

    name: str
    net: caffe_pb2.NetParameter
    deploy: caffe_pb2.NetParameter | None = None
    solver: caffe_pb2.SolverParameter | None = None
    spark: sparknet_pb2.SparkParameter | None = None
    diagnostics: list[Diagnostic] = field(default_factory=list)
    reports: dict[str, NetReport] = field(default_factory=dict)
    path: pathlib.Path | None = None
    keeps_data_layers: bool = False
    uses: list[tuple[BlockUse, ...]] = field(default_factory=list)  # for each layer of `net`, the blocks around it

    @property
    def shapes(self) -> dict[str, dict[str, tuple[int, ...] | None]]:
        """The shape of every blob by phase (TRAIN, TEST, DEPLOY); None where it is not known."""
        return {phase: dict(report.blobs) for phase, report in self.reports.items()}

    def summary(self) -> str:
        """The table of layers as text."""
        from .table import summary

        return summary(self)

    def save(self, folder: str | os.PathLike[str], stem: str | None = None) -> list[pathlib.Path]:
        """Writes it into `folder` in Caffe's text format, as sparknet-compile does, and gives the paths.

        Raises OutputError. The folder is made where it is not there; the files are called after `stem`, by default the
        model's file, or else its name.
        """
        from .emit import write_model

        return write_model(self, folder, stem or (self.path.stem if self.path else re.sub(r"[^\w.-]", "_", self.name)))

    def _repr_html_(self) -> str:
        from .view import frame

        return frame(self)


def compile_file(
    path: str | os.PathLike[str],
    *,
    defines: Mapping[str, str] | None = None,
    keep_data_layers: bool = False,
    data_shapes: variants.DataShapes | None = None,
    rows_of: variants.RowsOf | None = None,
) -> Model:
    """Compiles a `.snet` file, a model of the library by its name, or a net or solver in Caffe's text or binary format.

    `defines` gives values to the file's options. Data layers become Input layers that are fed at run time, unless
    `keep_data_layers`. The shape of one row of each top (no batch axis), for layers that do not state it, then comes
    from `data_shapes`, by phase, or from `rows_of`, asked with a phase, the URI of the source that the layer names, and
    its tops. Raises ModelError, which carries everything found wrong.
    """
    return _compile_file(_State(library.locate(path), dict(defines or {}), keep_data_layers, data_shapes, rows_of))


def _compile_file(state: _State) -> Model:
    file = state.path
    assert file is not None
    try:
        if library.is_bare(file) and not exists(file):
            near = did_you_mean(closest(file.name, library.names()))
            raise state.diagnostics.fail(
                "S005",
                f"no file and no model of the library is called `{file}`",
                help=near or "sparknet-compile --list shows the library",
            )
        data = prototxt.read_bytes(file, state.diagnostics)
        if file.suffix == ".snet":
            written = prototxt.decode(data)
            if written is None:
                raise state.diagnostics.fail("S005", f"{file} is no text in UTF-8")
            return _run(SNET_PASSES, state, Source(str(file), written))
        return _run(CAFFE_PASSES, state, Source(str(file), ""))
    except Failed:
        state.diagnostics.raise_errors()
        raise


def compile_text(
    text: str,
    name: str = "<text>",
    *,
    defines: Mapping[str, str] | None = None,
    keep_data_layers: bool = False,
    data_shapes: variants.DataShapes | None = None,
) -> Model:
    """Compiles a text in the `.snet` language; `name` is what messages call it. All else is as for compile_file."""
    state = _State(None, dict(defines or {}), keep_data_layers, data_shapes)
    return _run(SNET_PASSES, state, Source(name, text))


def compile_tree(
    tree: ast.File, *, keep_data_layers: bool = False, data_shapes: variants.DataShapes | None = None
) -> Model:
    """Compiles a syntax tree, which build.py makes from calls. Otherwise as compile_file."""
    state = _State(None, {}, keep_data_layers, data_shapes)
    state.tree = tree
    return _run(SNET_PASSES[1:], state, tree.span.source)


def load(path: str | os.PathLike[str], *, defines: Mapping[str, str] | None = None) -> Model:
    """A model as its author wrote it, Caffe's data layers included; `path` and `defines` are as for compile_file.

    Raises ModelError. A solver whose net is not there is a model with a solver, an empty net and a warning (S404).
    """
    return _compile_file(_State(library.locate(path), dict(defines or {}), True, None, needs_net=False))


@dataclass
class Analysis:
    """What the passes found out about a text, wrong or not; what they did not come to is missing.

    `tree` is None for a file of Caffe's, `network` where no net could be made of it; `modules` holds the names of the
    blocks that each import brought.
    """

    source: Source
    tree: ast.File | None
    network: Network | None
    reports: dict[str, NetReport]
    diagnostics: list[Diagnostic]
    modules: dict[str, tuple[str, ...]]


def analyse(text: str, path: pathlib.Path, before: Analysis | None = None) -> Analysis:
    """For editors: what compile_file would find, were `text` the file's content, errors being results as well.

    With the analysis `before` a change of the text, only the statements around the change are parsed again.
    """
    state = _State(path, {}, False, None, needs_net=False)
    state.source = Source(str(path), text)
    if path.suffix == ".snet":
        state.before = before.tree if before else None
        _pass_all(SNET_PASSES, state)
    else:
        _pass_all(CAFFE_PASSES, state)
    modules = {name: tuple(blocks) for name, blocks in state.program.modules.items()} if state.program else {}
    return Analysis(state.source, state.tree, state.network, state.reports, state.diagnostics.sorted(), modules)


# Passes


@dataclass
class _State:
    """What the passes hand on."""

    path: pathlib.Path | None
    defines: dict[str, str]
    keep_data_layers: bool
    data_shapes: variants.DataShapes | None
    rows_of: variants.RowsOf | None = None
    needs_net: bool = True
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    source: Source = field(default_factory=lambda: Source("", ""))
    before: ast.File | None = None  # of the text as it was before a change
    tree: ast.File | None = None
    program: resolve.Program | None = None
    network: Network | None = None
    own_net: bool = True  # the net stands in the file itself
    solver: caffe_pb2.SolverParameter | None = None
    solver_span: Span | None = None
    solver_fields: dict[str, Span] = field(default_factory=dict)
    spark: sparknet_pb2.SparkParameter | None = None
    net: caffe_pb2.NetParameter = field(default_factory=caffe_pb2.NetParameter)
    deploy: caffe_pb2.NetParameter | None = None
    reports: dict[str, NetReport] = field(default_factory=dict)
    importing: tuple[pathlib.Path, ...] = ()

    @property
    def strict(self) -> bool:
        """Whether a person wrote the net in the language: then what Caffe lets pass is an error here."""
        return self.tree is not None and self.own_net


_Pass = Callable[[_State], None]


def _run(passes: tuple[_Pass, ...], state: _State, source: Source) -> Model:
    state.source = source
    _pass_all(passes, state)
    state.diagnostics.raise_errors()
    name = state.net.name or (state.path.stem if state.path else "model")
    return Model(
        name,
        state.net,
        state.deploy,
        state.solver,
        state.spark,
        state.diagnostics.sorted(),
        state.reports,
        state.path,
        state.keep_data_layers,
        [layer.uses for layer in state.network.layers if layer.in_net] if state.network else [],
    )


def _pass_all(passes: tuple[_Pass, ...], state: _State) -> None:
    with _collector_paused(), contextlib.suppress(Failed, Exhausted):
        for one in passes:
            began = time.perf_counter()
            one(state)
            name, took = one.__name__.strip("_"), (time.perf_counter() - began) * 1e3
            _logger.info("compiling %s: %s, %.1f ms", state.source.name if state.source else "", name, took)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection: all that the passes make is still in use, and looking through it takes a third longer."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parse(state: _State) -> None:
    if state.before is not None:
        state.tree = reparse.reparse(state.before, state.source, state.diagnostics)
    state.tree = state.tree or parse(state.source, state.diagnostics)


def _resolve(state: _State) -> None:
    assert state.tree is not None
    state.program = resolve.resolve(
        state.tree, state.path, state.defines, lambda path, span: _import_blocks(path, span, state), state.diagnostics
    )
    if not (state.program.nets or state.program.solvers or state.diagnostics.has_errors):
        raise state.diagnostics.fail(
            "S404", f"{state.source.name} defines no net and no solver: there is nothing to compile"
        )


def _import_blocks(path: pathlib.Path, span: Span, state: _State) -> Mapping[str, resolve.BlockDefinition]:
    """The blocks of an imported file, whose own imports are read in turn."""
    resolved = path.resolve()
    if resolved in state.importing or (state.path and resolved == state.path.resolve()):
        raise state.diagnostics.fail("S115", f"{path} imports itself", span)
    if len(state.importing) >= resolve.MAX_IMPORTS:
        raise state.diagnostics.fail("S115", f"more than {resolve.MAX_IMPORTS} imports inside each other", span)
    written = prototxt.decode(prototxt.read_bytes(path, state.diagnostics, span))
    if written is None:
        raise state.diagnostics.fail("S005", f"{path} is no text in UTF-8", span)
    inner = _State(path, {}, True, None, diagnostics=state.diagnostics, importing=(*state.importing, resolved))
    tree = parse(Source(str(path), written), state.diagnostics)
    program = resolve.resolve(tree, path, {}, lambda other, at: _import_blocks(other, at, inner), state.diagnostics)
    return program.blocks


def _expand(state: _State) -> None:
    assert state.program is not None
    state.network = expand.expand(state.program, lambda base: _load_net(base, state), state.diagnostics)


def _load_net(base: ast.Constant, state: _State) -> tuple[caffe_pb2.NetParameter, pathlib.Path]:
    path = resolve.inside(state.path, base, state.diagnostics)
    return prototxt.read_as(path, caffe_pb2.NetParameter, state.diagnostics, base.span), path


def _load_solver(base: ast.Constant, state: _State) -> tuple[caffe_pb2.SolverParameter, pathlib.Path]:
    path = resolve.inside(state.path, base, state.diagnostics)
    return prototxt.read_as(path, caffe_pb2.SolverParameter, state.diagnostics, base.span), path


def _settings(state: _State) -> None:
    program = state.program
    assert program is not None
    if program.solvers:
        node, scope = program.solvers[0]
        state.solver_span = Span(node.span.source, node.span.start, node.span.start + len("solver"))
        made = settings.solver_of(
            node, scope, lambda base: _load_solver(base, state), state.network is not None, state.diagnostics
        )
        if made is not None:
            state.solver, state.solver_fields = made
    if program.sparks:
        state.spark = settings.spark_of(*program.sparks[0], state.diagnostics)
    if state.network is None:
        _net_of_solver(state)


def _unused(state: _State) -> None:
    """Not of a file with errors: what was left out may have been what read it."""
    assert state.tree is not None
    if not state.diagnostics.has_errors:
        unused.warn_unused(state.tree, state.diagnostics)


def _read_caffe(state: _State) -> None:
    """A net or a solver in Caffe's own format."""
    assert state.path is not None
    for name in state.defines:
        state.diagnostics.error("S112", f"-D {name}: {state.path} has no options")
    if state.source.text:
        file = prototxt.read_text(state.source, state.path, state.diagnostics)
    else:
        file = prototxt.read(state.path, state.diagnostics)
    state.source = file.source
    if isinstance(file.message, caffe_pb2.NetParameter):
        state.network = _network_of(file.message, file.source, file.layers)
        return
    assert isinstance(file.message, caffe_pb2.SolverParameter)
    state.solver = file.message
    _net_of_solver(state)


def _network_of(message: caffe_pb2.NetParameter, source: Source, places: Sequence[text.LayerPlace] = ()) -> Network:
    layers = expand.layers_of(message, None)
    at = 0
    for layer in layers:  # the upgrade may have added layers and left some out
        found = next((index for index in range(at, len(places)) if places[index].name == layer.message.name), None)
        if found is not None:
            place, at = places[found], found + 1
            layer.field_spans = {name: Span(source, *span) for name, span in place.fields.items()}
            layer.span = layer.field_spans.get("name") or Span(source, place.start, place.end)
    net = caffe_pb2.NetParameter()
    net.CopyFrom(message)
    del net.layer[:]
    return Network(net, layers, None)


def _net_of_solver(state: _State) -> None:
    """The net that a solver trains, from the files that it names."""
    solver = state.solver
    if solver is None:
        return
    state.own_net = False
    if solver.HasField("net_param"):
        state.network = _network_of(solver.net_param, Source("net_param", ""))
    elif solver.HasField("train_net_param"):
        test = solver.test_net_param[0] if solver.test_net_param else solver.train_net_param
        state.network = _network_of(prototxt.merge_phases(solver.train_net_param, test), Source("train_net_param", ""))
    elif solver.HasField("net"):
        state.network = _named_net(solver.net, "net", state)
    elif solver.HasField("train_net"):
        train = _named_net(solver.train_net, "train_net", state)
        test_network = _named_net(solver.test_net[0], "test_net", state) if solver.test_net else train
        if train is None or test_network is None:
            return
        merged = prototxt.merge_phases(_message_of(train), _message_of(test_network))
        state.network = _network_of(merged, Source(solver.train_net, ""))
    else:
        place = state.solver_span or Span(state.source, 0, 0)
        raise state.diagnostics.fail(
            "S404", "the solver names no net", place, 'write net="…", or put the net into the same file'
        )


def _named_net(named: str, kind: str, state: _State) -> Network | None:
    """The net in the file that a solver names; None with a warning when it is not there and none is needed."""
    base = state.path or pathlib.Path("solver")
    found = prototxt.resolve_net_path(base, named)
    if found is None:
        tried = list(dict.fromkeys([named, str(base.parent / named), str(base.parent / pathlib.Path(named).name)]))
        found_at = state.source.text.find(f'"{named}"')
        span = state.solver_fields.get(kind)
        if span is None and found_at >= 0:
            span = Span(state.source, found_at, found_at + len(named) + 2)
        said, notes = f'the solver\'s {kind} "{named}" is not there', [f"looked for {path}" for path in tried]
        if any(is_file(path) for path in tried):
            said = f"the solver's {kind} \"{named}\" lies outside of the working directory and of the solver's folder"
            notes = [
                "a model that someone else wrote reads no other files; copy the net there, or work in a folder above"
            ]
        if state.needs_net:
            raise state.diagnostics.fail("S404", said, span, notes=notes)
        state.diagnostics.warn("S404", said, span, notes=notes)
        return None
    if found.suffix == ".snet":
        chain = (*state.importing, base.resolve())
        if found.resolve() in chain or len(chain) > resolve.MAX_IMPORTS:
            raise state.diagnostics.fail("S115", f"{found} names itself as its net", state.solver_fields.get(kind))
        inner = _compile_file(_State(found, {}, True, None, importing=chain))
        return _network_of(inner.net, Source(str(found), ""))
    file = prototxt.read(found, state.diagnostics)
    if not isinstance(file.message, caffe_pb2.NetParameter):
        raise state.diagnostics.fail("S404", f"{found} holds no net")
    return _network_of(file.message, file.source, file.layers)


def _message_of(network: Network) -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter()
    net.CopyFrom(network.message)
    net.layer.extend(layer.message for layer in network.layers)
    return net


def _feed(state: _State) -> None:
    if state.network is not None:
        keep = state.keep_data_layers
        variants.feed_from_rdd(state.network, state.data_shapes, keep, state.diagnostics, state.rows_of)


def _graph(state: _State) -> None:
    if state.network is not None:
        graph.check_graph(state.network, state.diagnostics, strict=state.strict)


def _emit_net(state: _State) -> None:
    if state.network is None:
        raise Failed
    if not any(layer.in_net for layer in state.network.layers) and not state.diagnostics.has_errors:
        name = state.network.node.name if state.network.node else state.source.name
        raise state.diagnostics.fail("S404", f"the net {name} has no layers", state.network.span)
    state.net.CopyFrom(state.network.message)
    state.net.layer.extend(layer.message for layer in state.network.layers if layer.in_net)


def _dry_run(state: _State) -> None:
    network = state.network
    assert network is not None
    layers = [layer for layer in network.layers if layer.in_net]
    check.check_param_counts(network, state.reports, state.diagnostics)
    for phase in check.phases_of(network) or ["TRAIN"]:
        shapes = check.source_shapes(layers, phase)
        report = check.dry_run(state.net, layers, phase, state.diagnostics, shapes)
        check.check_assertions(network, report, phase, state.diagnostics)
        state.reports[phase] = report


def _deploy(state: _State) -> None:
    network = state.network
    assert network is not None
    if not any(layer.in_deploy for layer in network.layers) or state.diagnostics.has_errors:
        return
    if state.keep_data_layers:
        # The deploy variant never reads a database: an Input takes the place of every data layer.
        variants.feed_from_rdd(network, state.data_shapes, False, state.diagnostics, state.rows_of)
    layers = variants.deploy_layers(network)
    state.deploy = variants.deploy_net(network, layers)
    state.reports["DEPLOY"] = check.dry_run(state.deploy, layers, "TEST", state.diagnostics)


def _check_solver(state: _State) -> None:
    if state.solver is None or state.network is None:
        return
    span = state.solver_span or (Span(state.source, 0, 0) if state.source.text else None)
    # With `test_state` the sources may be those of a stage.
    elsewhere = state.solver.test_net or state.solver.test_net_param or state.solver.test_state
    has_test = bool(elsewhere) or "TEST" in check.phases_of(state.network)
    settings.check_solver(state.solver, span, state.solver_fields, has_test, state.diagnostics)


_CHECKS: tuple[_Pass, ...] = (_feed, _graph, _emit_net, _dry_run, _deploy, _check_solver)
SNET_PASSES: tuple[_Pass, ...] = (_parse, _resolve, _expand, _settings, _unused, *_CHECKS)
CAFFE_PASSES: tuple[_Pass, ...] = (_read_caffe, *_CHECKS)
