"""Brings networks in older syntax up to date, as Caffe does when it reads them."""

from . import caffe_pb2


def upgrade_net(net: caffe_pb2.NetParameter) -> None:
    """Turns `input:` with `input_shape` or `input_dim` into one Input layer named "input", in place.

    Raises ValueError when shapes and inputs do not match in number, or both kinds of shape are given.
    """
    if not net.input:
        return
    if net.input_shape and net.input_dim:
        raise ValueError("input_shape and input_dim exclude each other")
    shapes = [list(shape.dim) for shape in net.input_shape]
    if net.input_dim:
        if len(net.input_dim) % 4:
            raise ValueError(f"input_dim wants four numbers for each input, got {len(net.input_dim)} in all")
        dims = list(net.input_dim)
        shapes = [dims[at : at + 4] for at in range(0, len(dims), 4)]
    if len(shapes) != len(net.input):
        raise ValueError(f"{len(net.input)} inputs ({', '.join(net.input)}) but {len(shapes)} shapes")
    layer = caffe_pb2.LayerParameter(name="input", type="Input", top=net.input)
    for shape in shapes:
        layer.input_param.shape.add(dim=shape)
    layers = [layer, *net.layer]
    for field in ("input", "input_shape", "input_dim", "layer"):
        net.ClearField(field)
    net.layer.extend(layers)


# The names that `type` has in place of the deprecated enum's.
_SOLVER_TYPES = {
    caffe_pb2.SolverParameter.SGD: "SGD",
    caffe_pb2.SolverParameter.NESTEROV: "Nesterov",
    caffe_pb2.SolverParameter.ADAGRAD: "AdaGrad",
    caffe_pb2.SolverParameter.RMSPROP: "RMSProp",
    caffe_pb2.SolverParameter.ADADELTA: "AdaDelta",
    caffe_pb2.SolverParameter.ADAM: "Adam",
}


def upgrade_solver(solver: caffe_pb2.SolverParameter) -> None:
    """Turns the deprecated enum `solver_type` into `type`, in place.

    Raises ValueError when both are given.
    """
    if not solver.HasField("solver_type"):
        return
    if solver.HasField("type"):
        raise ValueError("solver_type and type exclude each other")
    solver.type = _SOLVER_TYPES[solver.solver_type]
    solver.ClearField("solver_type")
