"""Nets written in Python, as pycaffe has it.

    n = NetSpec()
    n.data, n.label = L.Data(source="mnist_lmdb", backend=P.Data.LMDB, batch_size=64, ntop=2)
    n.ip = L.InnerProduct(n.data, num_output=10, weight_filler=dict(type="xavier"))
    n.loss = L.SoftmaxWithLoss(n.ip, n.label)
    n.to_proto()

`L` is `layers`, `P` is `params`. Which message holds a layer type's fields is known from the registry.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any, Union, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from ..errors import EngineError
from ..proto import caffe_pb2
from .registry import layer_types

# What a call of a layer gives: its top, its tops when there are several, itself when there are none.
Made = Union["Top", tuple["Top", ...], "Function"]


class Top:
    """The output number `n` of the layer `fn`."""

    def __init__(self, fn: "Function", n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The net that computes this one output."""
        return to_proto(self)


class Function:
    """A layer: its type, the tops that it reads, its settings (fields, `ntop`, `in_place`)."""

    def __init__(self, type_name: str, inputs: tuple[Top, ...], settings: Mapping[str, Any]) -> None:
        for index, each in enumerate(inputs):
            if not isinstance(each, Top):
                raise TypeError(f"{type_name}: input {index} is a {type(each).__name__}; the top of a layer is needed")
        self.type_name = type_name
        self.inputs = inputs
        self.params = dict(settings)
        self.ntop: int = self.params.pop("ntop", 1)
        self.in_place: bool = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The net that ends in this layer."""
        return to_proto(self)


class NetSpec:
    """A net under construction: tops by name, in the order of their assignment.

    Assigned names become those of blobs and, of a layer's first top, of layers; what has none is called by its type
    and a number, as in pycaffe. Names that are no identifiers: `n["conv/3x3"] = ...`.
    """

    tops: OrderedDict[str, Top | Function]

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name: str, value: Top | Function) -> None:
        if not isinstance(value, (Top, Function)):
            raise TypeError(f"`{name}` is to be the top of a layer, not a {type(value).__name__}")
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        # Not only tops: a layer that has none can be kept under a name as well.
        if name not in self.tops:
            raise AttributeError(f"the net has no top `{name}`; it has {', '.join(self.tops) or 'none'}")
        return self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    __setitem__ = __setattr__
    __getitem__ = __getattr__
    __delitem__ = __delattr__

    def update(self, name: str, params: Mapping[str, Any]) -> None:
        """Changes settings of the layer that makes the top `name`."""
        made = self.tops[name]
        (made.fn if isinstance(made, Top) else made).params.update(params)

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The net; raises EngineError for fields that a layer does not have, and values that they do not take."""
        return _Writer({top: name for name, top in self.tops.items()}).net(self.tops.values())


def to_proto(*tops: Top | Function) -> caffe_pb2.NetParameter:
    """The net that computes `tops`, all names automatic; raises EngineError as NetSpec.to_proto does."""
    return _Writer({}).net(tops)


class _Writer:
    """Turns layers into messages, those that a layer reads before it."""

    def __init__(self, names: Mapping[Top | Function, str]) -> None:
        self._names = dict(names)
        self._numbers: Counter[str] = Counter()
        self._layers: dict[Function, caffe_pb2.LayerParameter] = {}

    def net(self, tops: Any) -> caffe_pb2.NetParameter:
        for top in tops:
            self._write(top.fn if isinstance(top, Top) else top)
        return caffe_pb2.NetParameter(layer=self._layers.values())

    def _write(self, last: Function) -> None:
        # A stack of its own: nets are deeper than Python's.
        todo = [last]
        while todo:
            function = todo[-1]
            missing = [each.fn for each in function.inputs if each.fn not in self._layers]
            if function in self._layers or not missing:
                todo.pop()
                if function not in self._layers:
                    self._layers[function] = self._layer(function)
            else:
                todo.append(missing[0])

    def _layer(self, function: Function) -> caffe_pb2.LayerParameter:
        layer = caffe_pb2.LayerParameter(type=function.type_name)
        layer.bottom.extend(self._layers[each.fn].top[each.n] for each in function.inputs)
        if function.in_place:
            layer.top.extend(layer.bottom)
        else:
            layer.top.extend(self._name(top, function) for top in function.tops)
        layer.name = self._name(function.tops[0] if function.tops else function, function)
        for field, value in function.params.items():
            holder, descriptor = _place(layer, field)
            _assign(holder, descriptor, value, f"layer `{layer.name}` ({layer.type})")
        return layer

    def _name(self, what: Top | Function, function: Function) -> str:
        if what not in self._names:
            self._numbers[function.type_name] += 1
            self._names[what] = f"{function.type_name}{self._numbers[function.type_name]}"
        return self._names[what]


def _place(layer: caffe_pb2.LayerParameter, field: str) -> tuple[Message, FieldDescriptor]:
    """The message that holds `field` of the layer, one of its type's or the layer itself; EngineError for neither."""
    if not field.endswith("param"):
        known = layer_types().get(layer.type)
        # Types that the engine lacks can still be written, for who has them.
        own = [each.name for each in cast(Descriptor, layer.DESCRIPTOR).fields if _is_for(each, layer.type)]
        for name in known.messages if known is not None else own:
            holder: Message = getattr(layer, name)
            found = _field(holder, field)
            if found is not None:
                return holder, found
    found = _field(layer, field)
    if found is None:
        raise EngineError(f"layer `{layer.name}`: {layer.type} has no field `{field}`")
    return layer, found


def _field(message: Message, name: str) -> FieldDescriptor | None:
    return cast(Descriptor, message.DESCRIPTOR).fields_by_name.get(name)


def _is_for(field: FieldDescriptor, type_name: str) -> bool:
    return field.message_type is not None and field.message_type.name == f"{type_name}Parameter"


def _assign(holder: Message, field: FieldDescriptor, value: Any, where: str) -> None:
    """Writes `value` into the field: a dictionary into a message, a list, or its only item, into a repeated field."""
    try:
        if field.is_repeated:
            items = value if isinstance(value, (list, tuple)) else [value]
            target = getattr(holder, field.name)
            for item in items:
                if field.message_type is None:
                    target.append(item)
                else:
                    _fill(target.add(), item, where)
        elif field.message_type is not None:
            getattr(holder, field.name).SetInParent()
            _fill(getattr(holder, field.name), value, where)
        else:
            # By name too, as dict(pool="MAX").
            setattr(holder, field.name, value)
    except (TypeError, ValueError) as error:
        raise EngineError(f"{where}: `{field.name}` cannot be {value!r}: {error}") from error


def _fill(message: Message, value: Any, where: str) -> None:
    if isinstance(value, Message):
        message.CopyFrom(value)
        return
    if not isinstance(value, Mapping):
        raise TypeError("a dictionary of its fields is needed")
    for name, each in value.items():
        field = _field(message, name)
        if field is None:
            raise EngineError(f"{where}: {message.DESCRIPTOR.name} has no field `{name}`")
        _assign(message, field, each, where)


class Layers:
    """`L.Type(top, ..., field=value, ...)` makes a layer of any type and gives its top.

    `ntop` says how many tops it has (several: they are given as a tuple; 0: the layer itself is given), `in_place=True`
    writes over its bottoms.
    """

    def __getattr__(self, name: str) -> Any:
        def make(*inputs: Top, **settings: Any) -> Made:
            function = Function(name, inputs, settings)
            return function if function.ntop == 0 else function.tops[0] if function.ntop == 1 else function.tops

        make.__name__ = make.__qualname__ = name
        return make


class Parameters:
    """`P.Pooling.MAX`: the numbers of Caffe's enums, by message and value."""

    def __getattr__(self, name: str) -> Any:
        message = caffe_pb2.DESCRIPTOR.message_types_by_name.get(f"{name}Parameter")
        if message is None:
            raise AttributeError(f"Caffe has no {name}Parameter")
        return _Values(message.name, list(message.enum_types))


class _Values:
    def __init__(self, message: str, enums: list[EnumDescriptor]) -> None:
        self._message = message
        self._numbers: dict[str, int] = {value.name: value.number for enum in enums for value in enum.values}

    def __getattr__(self, name: str) -> int:
        if name not in self._numbers:
            raise AttributeError(f"{self._message} has no value {name}; it has {', '.join(self._numbers) or 'none'}")
        return self._numbers[name]


layers = Layers()
params = Parameters()
