"""Layers written in Python."""

import importlib
import traceback

from ..errors import EngineError
from ..proto import caffe_pb2
from . import _native
from ._native import Blob


class BlobVec(list[Blob]):
    """A layer's parameters."""

    def add_blob(self, *shape: int) -> None:
        """Declares a parameter of this shape, filled with zeros; for `setup`, which may write its first values."""
        self.append(_native.new_blob(shape))


class Layer:
    """A layer of a net, and the base of layers written in Python.

    `name`, `type` and `phase` are what they say, `blobs` the parameters. A layer of type Python is an instance of the
    class that its `python_param` names by `module` and `layer`; the class has these methods, and `param_str` of
    `python_param` as an attribute. `bottom` and `top` are lists of Blobs. `reshape` runs before every forward pass.
    An exception in a method ends the pass with a LayerError that names the layer, and whose cause is the exception.
    """

    phase: int
    param_str: str

    def __init__(self, param: caffe_pb2.LayerParameter) -> None:
        self.name = param.name
        self.type = param.type
        self.blobs: list[Blob] = BlobVec()

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Once, before the first `reshape`: reads `param_str`, declares parameters with `self.blobs.add_blob`."""

    def reshape(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Gives the tops their shapes."""
        raise NotImplementedError(f"{type(self).__name__} lacks the method reshape(bottom, top)")

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Writes the tops' data."""
        raise NotImplementedError(f"{type(self).__name__} lacks the method forward(bottom, top)")

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Writes the bottoms' diff where `propagate_down` says so, adds to the parameters' diff."""
        raise NotImplementedError(f"{type(self).__name__} lacks the method backward(top, propagate_down, bottom)")

    def __repr__(self) -> str:
        return f"<Layer {self.name} ({self.type})>"


def make_layer(name: str, module: str, layer: str, param_str: str, phase: int) -> Layer:
    """The instance for a layer of type Python; raises what the module and the class raise, EngineError for no class."""
    if not module or not layer:
        raise EngineError("python_param must name a module and a layer, the class in it")
    kind = getattr(importlib.import_module(module), layer, None)
    if not isinstance(kind, type) or not issubclass(kind, Layer):
        raise EngineError(f"module `{module}` has no class `{layer}` that is derived from Layer")
    param = caffe_pb2.LayerParameter(name=name, type="Python")
    param.python_param.module, param.python_param.layer, param.python_param.param_str = module, layer, param_str
    made = kind(param)
    if not hasattr(made, "blobs"):
        Layer.__init__(made, param)  # its own __init__ has not
    made.phase = phase
    made.param_str = param_str
    return made


def describe_error(error: BaseException) -> str:
    """What a layer's exception says, and where in the user's code it was raised."""
    if isinstance(error, EngineError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"{text}{where}"
