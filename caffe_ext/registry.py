"""The layer types, as the C++ registry has them."""

import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass

from . import _native


@dataclass(frozen=True)
class LayerType:
    """What the engine knows about a layer type; each is declared in its own file in `caffe_ext/layers/`.

    `messages` are the fields of LayerParameter that hold the type's settings, searched in this order; `positional` the
    settings that may be given by position; `extensions` those fields that forks have added to Caffe's own messages and
    that the type heeds. `max_bottoms`, `max_tops` and `max_params` are None where any number will do, `same_tops` asks
    for as many tops as bottoms. `in_place` allows its top to be its bottom; `reads_bottom` and `reads_top` say what its
    backward pass needs unspoilt by layers that work in place after it. `loss`: its first top counts in the objective
    unless `loss_weight` says otherwise. `source`: its tops are filled from outside.
    """

    name: str
    summary: str
    messages: tuple[str, ...]
    positional: tuple[str, ...]
    extensions: tuple[str, ...]
    min_bottoms: int
    max_bottoms: int | None
    min_tops: int
    max_tops: int | None
    same_tops: bool
    bottom_names: tuple[str, ...]
    in_place: bool
    reads_bottom: bool
    reads_top: bool
    loss: bool
    source: bool
    max_params: int | None

    @property
    def has_params(self) -> bool:
        """Whether layers of the type can have parameters."""
        return self.max_params != 0


@functools.cache
def layer_types() -> Mapping[str, LayerType]:
    """Every layer type by its name, in the order of the names."""
    return types.MappingProxyType({spec["name"]: LayerType(**spec) for spec in _native.layer_specs()})


def layer_type_list() -> list[str]:
    """The names of all layer types, sorted."""
    return list(layer_types())
