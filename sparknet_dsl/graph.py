"""Rules of the graph, phase by phase: how many bottoms, who writes over what, which blobs exist where."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from .diagnostics import Diagnostics, Fix, Label, Span
from .layers import PHASES, Blob, Layer, Network, active


def check_graph(network: Network, diagnostics: Diagnostics, *, strict: bool = True) -> None:
    """Reports what breaks a rule.

    Not `strict`: what Caffe runs all the same, in place over what another layer's backward pass reads, is a warning, as
    befits a net that somebody else wrote.
    """
    for layer in network.layers:
        _check_arity(layer, diagnostics)
    for phase in PHASES:
        layers = [layer for layer in network.layers if layer.in_net and active(layer.message, phase)]
        if any(not layer.message.bottom for layer in layers) or phase == "TRAIN":
            _PhaseCheck(network, phase, diagnostics, strict).run(layers)


def has_source(network: Network, phase: str) -> bool:
    """Whether any layer of the phase is fed from outside: without one the net does not exist in that phase."""
    return any(layer.in_net and not layer.message.bottom and active(layer.message, phase) for layer in network.layers)


def _check_arity(layer: Layer, diagnostics: Diagnostics) -> None:
    info, message = layer.info, layer.message
    if info is None:
        return
    got = len(message.bottom)
    most = info.max_bottoms
    if got < info.min_bottoms or (most is not None and got > most):
        layer.broken = True
        wants = _range(info.min_bottoms, most, "bottom")
        names = f" ({', '.join(info.bottom_names)})" if info.bottom_names else ""
        said = f"`{message.name}`: {message.type} takes {wants}{names}, got {got or 'none'}"
        fix = None
        if got == 0 and layer.label_span is not None and info.min_bottoms == 1:
            line = layer.label_span.line - 1
            here = Span(layer.label_span.source, layer.label_span.start, layer.label_span.start)
            fix = Fix(here, "-> ")
            label = f"did you mean `-> {message.name}:` to continue line {line}?" if line else "`x -> ` is missing"
            diagnostics.error("S202", said, layer.label_span, label, fix=fix)
            return
        diagnostics.error("S202", said, layer.place())
    tops = len(message.top)
    if layer.bang is not None and info.max_tops != 0:
        _check_in_place(layer, diagnostics)
    elif info.same_tops and tops != got:
        layer.broken = True
        diagnostics.error(
            "S203",
            f"`{message.name}`: {message.type} makes as many tops as it has bottoms, {got}, not {tops}",
            layer.place(),
        )
    elif info.loss and tops == 0:
        return  # Caffe gives it a top without a name
    elif tops < info.min_tops or (info.max_tops is not None and tops > info.max_tops):
        layer.broken = True
        wants = _range(info.min_tops, info.max_tops, "top")
        diagnostics.error("S203", f"`{message.name}`: {message.type} makes {wants}, not {tops}", layer.place())


def _check_in_place(layer: Layer, diagnostics: Diagnostics) -> None:
    assert layer.info is not None
    if not layer.info.in_place:
        layer.broken = True
        diagnostics.error(
            "S205",
            f"{layer.message.type} cannot run in place",
            layer.bang,
            "leave out the `!`",
            notes=["what it writes does not have the shape of what it reads, or it still needs what it reads"],
            fix=Fix(layer.bang, "") if layer.bang else None,
        )


def _range(least: int, most: int | None, noun: str) -> str:
    if least == most:
        return f"{least or 'no'} {noun}{'s' * (least != 1)}"
    if most is None:
        return f"at least {least} {noun}{'s' * (least != 1)}"
    return f"{least} to {most} {noun}s"


@dataclass
class _Version:
    """The present content of a blob: who wrote it, and who has read it since."""

    writer: Layer
    readers: list[Layer] = field(default_factory=list)


class _PhaseCheck:
    """Goes through the layers of one phase as Caffe would build them."""

    def __init__(self, network: Network, phase: str, diagnostics: Diagnostics, strict: bool) -> None:
        self.network = network
        self.phase = phase
        self.diagnostics = diagnostics
        self.strict = strict
        self.blobs: dict[str, _Version] = {}
        self.missing: set[str] = set()  # blobs, each said to be missing once
        self.names: dict[str, Layer] = {}
        self.here: set[Layer] = set()

    def run(self, layers: list[Layer]) -> None:
        self.here = set(layers)
        for layer in layers:
            for index, bottom in enumerate(layer.bottoms):
                self._read(layer, index, bottom)
            self._write(layer)
            self._name(layer)
        if self.phase == "TRAIN" and self.strict:
            self._warn_dangling(layers)

    def _read(self, layer: Layer, index: int, bottom: Blob) -> None:
        version = self.blobs.get(bottom.name)
        if version is None:
            if bottom.name not in self.missing and not layer.broken:
                self._missing(layer, index, bottom)
            self.missing.add(bottom.name)
            layer.broken = True
            return
        here = [producer for producer in bottom.producers if producer in self.here]
        if here and version.writer not in here and self.names.get(here[0].message.name) is here[0]:
            self._overwritten(layer, index, bottom, here[0], version.writer)
        version.readers.append(layer)

    def _missing(self, layer: Layer, index: int, bottom: Blob) -> None:
        name = layer.message.name
        elsewhere = [other for other in self.network.layers if bottom.name in other.message.top]
        broken = any(other.broken for other in elsewhere)
        if broken:
            return
        phases = {phase for other in elsewhere for phase in PHASES if other.in_net and active(other.message, phase)}
        if any(other.in_deploy for other in elsewhere) and not phases:
            phases = {"the deploy variant"}
        secondary = [Label(other.span, "made here") for other in elsewhere if other.span]
        if phases and self.phase not in phases:
            where = " and ".join(sorted(phases))
            self.diagnostics.error(
                "S208",
                f"`{name}` is in {self.phase} but `{bottom.name}` exists only in {where}",
                layer.bottom_place(index),
                secondary=secondary[:2],
                help=f"add a source marked @{self.phase.lower()}, or mark `{name}` @{next(iter(phases)).lower()}"
                if phases <= set(PHASES)
                else f"mark `{name}` @deploy too",
            )
            return
        if elsewhere:
            self.diagnostics.error(
                "S201",
                f"`{name}` reads `{bottom.name}` before it is made",
                layer.bottom_place(index),
                secondary=secondary[:1],
            )
            return
        self.diagnostics.error(
            "S201", f"`{name}` reads `{bottom.name}`, which no layer makes", layer.bottom_place(index)
        )

    def _overwritten(self, layer: Layer, index: int, bottom: Blob, meant: Layer, writer: Layer) -> None:
        old, new = meant.message.name, writer.message.name
        where = layer.bottom_place(index)
        fits = where is not None and where.text.strip("`") == old
        self.diagnostics.error(
            "S204",
            f"`{old}` was overwritten in place by `{new}`",
            where,
            f"use `{new}`",
            secondary=[Label(writer.bang or writer.span, "overwritten here")] if writer.span else [],
            help=f"leave out the `!` of `{new}` if both values are wanted",
            fix=Fix(where, new) if where and fits else None,
        )

    def _write(self, layer: Layer) -> None:
        for index, top in enumerate(layer.message.top):
            in_place = top in layer.message.bottom
            version = self.blobs.get(top)
            if in_place and version is not None:
                if index < len(layer.message.bottom) and layer.message.bottom[index] == top:
                    self._check_corruption(layer, top, version)
            elif version is not None:
                self._duplicate(layer, top, version.writer)
            self.blobs[top] = _Version(layer)

    def _check_corruption(self, layer: Layer, top: str, version: _Version) -> None:
        """Whether another layer needs what this one writes over: Caffe computes wrong gradients (BVLC/caffe#2853)."""
        others = [reader for reader in version.readers if reader is not layer]
        if others and not layer.broken:
            layer.broken = True
            self.diagnostics.error(
                "S206",
                f"`{layer.message.name}` would write over `{top}`, which `{others[0].message.name}` reads too",
                layer.bang or layer.span,
                "leave out the `!`" if layer.bang else "",
                secondary=[Label(others[0].span, "read here")] if others[0].span else [],
                fix=Fix(layer.bang, "") if layer.bang else None,
            )
        victim = version.writer
        if others or self.phase != "TRAIN" or not (victim.info and victim.info.reads_top and victim.message.bottom):
            return
        by_hand = not self.strict or "top" in layer.field_spans  # then Caffe's rules hold
        say = self.diagnostics.warn if by_hand else self.diagnostics.error
        say(
            "S206",
            f"`{layer.message.name}` in place would corrupt the gradients of `{victim.message.name}`",
            layer.bang or layer.span,
            "leave out the `!`" if layer.bang else "",
            secondary=[Label(victim.span, f"{victim.message.type} reads its own output in its backward pass")]
            if victim.span and layer.bang
            else [],
            notes=["Caffe trains on without a word (BVLC/caffe#2853)"],
            fix=Fix(layer.bang, "") if layer.bang else None,
        )

    def _duplicate(self, layer: Layer, top: str, first: Layer) -> None:
        layer.broken = True
        place = layer.label_span or layer.span
        line = f" at line {first.label_span.line}" if first.label_span else ""
        self.diagnostics.error(
            "S207",
            f"`{top}` is defined twice: first{line or ' by `' + first.message.name + '`'}",
            place,
            f"both are active in {self.phase}",
            secondary=[Label(first.label_span, "first defined here")] if first.label_span and place else [],
            notes=[*(f"in {step}" for step in layer.trail[-3:]), "layers in different phases may share a name"],
        )

    def _name(self, layer: Layer) -> None:
        name = layer.message.name
        first = self.names.setdefault(name, layer)
        if first is layer or layer.broken or layer.label_span is None or first.label_span is None:
            return
        if {"name", "top"} <= layer.field_spans.keys():
            return  # wired by hand, as nets of Caffe's are printed that have two such layers
        if "name" in layer.field_spans and not _has_parameters(layer) and not _has_parameters(first):
            return  # as Caffe's own examples do on purpose; no weights to confuse
        self.diagnostics.error(
            "S207",
            f"two layers are called `{name}`",
            layer.label_span,
            f"both are active in {self.phase}",
            secondary=[Label(first.label_span, "first defined here")],
            notes=["weights are stored and loaded by layer name"],
        )

    def _warn_dangling(self, layers: list[Layer]) -> None:
        """A value that nothing reads, in a net that has a loss, is more likely a slip than an output."""
        if not any(layer.info and layer.info.loss for layer in layers):
            return
        read = {producer for layer in self.network.layers for blob in layer.bottoms for producer in blob.producers}
        for layer in _unread(layers):
            if (
                layer.info
                and not layer.broken
                and not layer.info.loss
                and not layer.info.source
                and not layer.message.loss_weight
                and layer not in read
                and "labels" not in layer.info.bottom_names
            ):
                self.diagnostics.warn(
                    "S209",
                    f"nothing reads `{layer.message.name}`: it becomes an output of the net",
                    layer.label_span,
                    help=f"if it should not, end it with `{layer.message.top[0]} -> Silence`",
                )


def _has_parameters(layer: Layer) -> bool:
    return layer.info is None or layer.info.has_params


def _unread(layers: Iterable[Layer]) -> list[Layer]:
    """The layers whose every top is read by no later layer."""
    everything = list(layers)
    needed: set[str] = set()
    unread = []
    for layer in reversed(everything):
        if layer.message.top and not any(top in needed for top in layer.message.top):
            unread.append(layer)
        needed.difference_update(set(layer.message.top) - set(layer.message.bottom))
        needed.update(layer.message.bottom)
    return unread[::-1]
