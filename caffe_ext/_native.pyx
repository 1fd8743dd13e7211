# The engine for Python. Texts cross the border as UTF-8.
#
# cython: c_string_type=str, c_string_encoding=utf8
"""The engine's classes for Python: arrays, GIL, errors. What users see of them stands in the modules beside this."""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport PyObject
from cython.operator cimport dereference
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libcpp.map cimport map
from libcpp.memory cimport make_shared, shared_ptr, unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

import threading

from ..errors import EngineError, LayerError


cdef extern from *:
    """
    // A reference of C++'s to a Python object, which any thread may drop.
    static std::shared_ptr<void> keep_object(PyObject* object) {
      Py_INCREF(object);
      return {object, [](void* kept) {
        const PyGILState_STATE state = PyGILState_Ensure();
        Py_DECREF(static_cast<PyObject*>(kept));
        PyGILState_Release(state);
      }};
    }
    """
    shared_ptr[void] keep_object(object) noexcept


cdef int raise_error() except *:
    # Called by Cython inside the catch block of every call declared `except +raise_error`.
    cdef Failure failure = current_failure()
    cause = <object><PyObject*>failure.cause.get() if failure.cause.get() != NULL else None
    if cause is not None and not isinstance(cause, Exception):
        raise cause  # Ctrl-C, and requests to exit
    if failure.layer.size() or failure.type.size():
        raise LayerError(failure.layer, failure.type, failure.reason, failure.kind) from cause
    raise EngineError(failure.reason) from cause


cdef list list_of(const vector[int]& numbers):
    # Cython iterates over no const vector.
    return [numbers[i] for i in range(numbers.size())]


cdef tuple tuple_of(const Shape& shape):
    return tuple([shape[i] for i in range(shape.size())])


def set_num_threads(int threads) -> None:
    """Sets how many threads the engine uses, in all threads of this process; raises EngineError below 1."""
    c_set_num_threads(threads)


def num_threads() -> int:
    """How many threads the engine uses: what was set, else OpenMP's choice (`OMP_NUM_THREADS`, or all cores)."""
    return c_num_threads()


def memory_used() -> int:
    """How many bytes the arrays of all nets and views in this process take now."""
    return c_memory_used()


def memory_limit() -> int:
    """How many they may take: what was set, else what this machine, or the container, has."""
    return c_memory_limit()


def set_memory_limit(int64_t size) -> None:
    """Sets how many bytes the engine's arrays may take in this process; raises EngineError below 1.

    A net that would take more is refused (LayerError, kind "memory") instead of bringing the process down.
    """
    c_set_memory_limit(size)


def isa() -> str:
    """The instruction set that oneDNN uses here, in its own words."""
    return c_isa()


# ---- messages ----

cdef class Schema:
    cdef shared_ptr[const MessageSchema] schema


cdef dict _schemas = {}  # by the descriptor's full name


cdef Schema schema_of(descriptor):
    found = _schemas.get(descriptor.full_name)
    if found is not None:
        return found
    cdef shared_ptr[MessageSchema] made = make_shared[MessageSchema]()
    made.get().name = descriptor.name
    cdef FieldValue* preset
    cdef string name
    for field in descriptor.fields:
        name = field.name
        preset = &made.get().defaults[name]
        if field.message_type is not None:
            made.get().children[name] = schema_of(field.message_type).schema
        elif not field.is_repeated:
            put_value(preset, field, field.default_value)
    cdef Schema result = Schema()
    result.schema = <shared_ptr[const MessageSchema]>made
    _schemas[descriptor.full_name] = result
    return result


cdef int put_value(FieldValue* to, field, value) except -1:
    kind = field.cpp_type
    if kind == field.CPPTYPE_MESSAGE:
        to.messages.push_back(message_of(value))
    elif kind == field.CPPTYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        to.texts.push_back(<string>(known.name if known is not None else str(value)))
    elif kind == field.CPPTYPE_STRING:
        # Bytes fields hold images, which no layer reads from its settings.
        if isinstance(value, str):
            to.texts.push_back(<string>value)
    elif kind == field.CPPTYPE_FLOAT or kind == field.CPPTYPE_DOUBLE:
        to.reals.push_back(value)
    else:
        to.integers.push_back(<int64_t>value)
    return 0


cdef CMessage message_of(message) except *:
    cdef CMessage result = CMessage(schema_of(message.DESCRIPTOR).schema)
    cdef FieldValue* to
    for field, value in message.ListFields():
        # Weights are copied as arrays once the net is there.
        if field.name == "blobs":
            continue
        to = &result.field(field.name)
        if field.is_repeated:
            for item in value:
                put_value(to, field, item)
        else:
            put_value(to, field, value)
    return result


cdef NetState state_of(int phase, int64_t level, stages) except *:
    cdef NetState state
    if phase != 0 and phase != 1:
        raise EngineError(f"the phase is TRAIN (0) or TEST (1), not {phase}")
    state.phase = <CPhase>phase
    state.level = level
    for stage in stages:
        state.stages.push_back(<string>stage)
    return state


cdef CMemory memory_of(memory) except *:
    if memory == "all":
        return CMemory.kAll
    if memory == "reuse":
        return CMemory.kReuse
    if memory == "lean":
        return CMemory.kLean
    raise EngineError(f"memory is all, reuse or lean, not {memory}")


cdef CPrecision precision_of(precision) except *:
    if precision == "float32":
        return CPrecision.kFloat32
    if precision == "bf16":
        return CPrecision.kBfloat16
    raise EngineError(f"precision is float32 or bf16, not {precision}")


cdef map[string, Shape] shapes_of(shapes) except *:
    cdef map[string, Shape] result
    for name, shape in shapes.items():
        result[<string>name] = <Shape>list(shape)
    return result


# ---- the registry, the dry run ----

def layer_specs() -> list:
    """Every layer type as a dictionary, in the order of their names."""
    cdef const LayerSpec* spec
    result = []
    for i in range(Registry.all().size()):
        spec = Registry.all()[i]
        result.append({
            "name": spec.type,
            "summary": spec.summary,
            "messages": tuple(spec.message_fields),
            "positional": tuple(spec.positional_fields),
            "extensions": tuple(spec.extension_fields),
            "min_bottoms": spec.min_bottoms,
            "max_bottoms": None if spec.max_bottoms < 0 else spec.max_bottoms,
            "min_tops": spec.min_tops,
            "max_tops": None if spec.max_tops < 0 else spec.max_tops,
            "same_tops": spec.equal_tops,
            "bottom_names": tuple(spec.bottoms_named),
            "in_place": spec.may_be_in_place,
            "reads_bottom": spec.backward_reads_bottom,
            "reads_top": spec.backward_reads_top,
            "loss": spec.is_loss,
            "source": spec.is_source,
            "max_params": None if spec.most_params < 0 else spec.most_params,
        })
    return result


def check_net(message, int phase, int64_t level, stages, shapes) -> dict:
    """The dry run; lists of tuples for the report's dataclasses."""
    cdef CMessage param = message_of(message)
    cdef NetState state = state_of(phase, level, stages)
    cdef map[string, Shape] supplied = shapes_of(shapes)
    cdef vector[Problem] problems
    cdef unique_ptr[CNet] net
    with nogil:
        net = CNet.check(param, state, supplied, problems)

    cdef int blobs = <int>net.get().blobs().size()
    blob_names = [<str>net.get().blobs()[i].get().name for i in range(blobs)]
    blob_shapes = [
        tuple_of(net.get().blobs()[i].get().shape()) if net.get().known(i) else None for i in range(blobs)
    ]
    layers = []
    cdef size_t at
    cdef const NetLayer* layer
    for at in range(net.get().layers().size()):
        layer = &net.get().layers()[at]
        params = []
        adds = 0
        if layer.layer.get() != NULL:
            params = [tuple_of(layer.layer.get().params[i].get().shape()) for i in range(layer.layer.get().params.size())]
            adds = layer.layer.get().multiply_adds(layer.bottom, layer.top)
        layers.append((
            layer.index, layer.name, layer.type, [blob_names[i] for i in list_of(layer.bottom_ids)],
            [blob_names[i] for i in list_of(layer.top_ids)], [blob_shapes[i] for i in list_of(layer.top_ids)], params, adds,
        ))
    found = []
    cdef Problem problem
    for problem in problems:
        bottom = None if problem.bottom < 0 else problem.bottom
        found.append((problem.index, problem.layer, kind_name(problem.kind), problem.reason, bottom))
    return {
        "layers": layers,
        "problems": found,
        "blobs": dict(zip(blob_names, blob_shapes)),
        "inputs": [blob_names[i] for i in list_of(net.get().inputs())],
        "outputs": [blob_names[i] for i in list_of(net.get().outputs())],
    }


# ---- arrays ----

cdef char* FLOAT_FORMAT = b"f"

cdef class View:
    """Row-major floats that outlive their owner. Tensors in `pinned` stay in row-major form while the view lives."""

    cdef shared_ptr[float] memory
    cdef vector[Tensor] pinned
    cdef Py_ssize_t[32] shape
    cdef Py_ssize_t[32] strides
    cdef int axes

    def __dealloc__(self):
        for i in range(self.pinned.size()):
            self.pinned[i].unpin()

    cdef set_shape(self, const Shape& shape):
        if shape.size() > 32:
            raise EngineError(f"numpy has no arrays of {shape.size()} axes here")
        self.axes = <int>shape.size()
        cdef Py_ssize_t stride = sizeof(float)
        cdef int axis
        for axis in range(self.axes - 1, -1, -1):
            self.shape[axis] = shape[axis]
            self.strides[axis] = stride
            stride *= max(shape[axis], 1)

    cdef pin(self, const Tensor& tensor):
        # A copy of the tensor shares its values, and goes on holding them when the blob gets others.
        self.pinned.push_back(tensor)
        self.pinned.back().pin()
        self.pinned.back().settle()

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        cdef Py_ssize_t size = sizeof(float)
        cdef int axis
        for axis in range(self.axes):
            size *= self.shape[axis]
        buffer.buf = self.memory.get()
        buffer.obj = self
        buffer.len = size
        buffer.itemsize = sizeof(float)
        buffer.readonly = 0
        buffer.ndim = self.axes
        buffer.format = NULL
        if flags & PyBUF_FORMAT:
            buffer.format = FLOAT_FORMAT
        buffer.shape = NULL
        if flags & PyBUF_ND:
            buffer.shape = self.shape
        buffer.strides = NULL
        if (flags & PyBUF_STRIDES) == PyBUF_STRIDES:
            buffer.strides = self.strides
        buffer.suboffsets = NULL
        buffer.internal = NULL


cdef as_array(View view):
    import numpy  # here, not above: the compiler needs the registry and the dry run only, and starts sooner without

    return numpy.asarray(view)


cdef tensor_view(Tensor& tensor):
    cdef View view = View()
    view.set_shape(tensor.shape())
    view.memory = tensor.memory()
    view.pin(tensor)
    return as_array(view)


cdef flat_view(const shared_ptr[float]& memory, int64_t start, const Shape& shape):
    cdef View view = View()
    view.set_shape(shape)
    view.memory = shared_ptr[float](memory, memory.get() + start)
    return as_array(view)


cdef Shape shape_of(extents) except *:
    cdef Shape shape
    for extent in extents:
        shape.push_back(<int64_t>extent)
    return shape


cdef class Guard:
    """Keeps a net, and nets that share its parameters, to one thread at a time.

    Others are refused instead of meeting half-written arrays. While the code of a Python layer runs, its thread may
    look at blobs.
    """

    cdef long owner  # the thread that computes; 0: none
    cdef int inside  # how many calls of Python layers are going on
    cdef Guard joined  # what decides instead

    cdef Guard root(self):
        return self if self.joined is None else self.joined.root()

    cdef int check_free(self) except -1:
        cdef Guard root = self.root()
        if root.owner and not (root.inside and root.owner == PyThread_get_thread_ident()):
            raise EngineError("the net is computing in another thread: wait for it, or give each thread its own net")
        return 0

    cdef int enter(self) except -1:
        cdef Guard root = self.root()
        if root.owner and root.owner == PyThread_get_thread_ident():
            raise EngineError("the net is computing: a layer cannot run the net that it is in")
        self.check_free()
        root.owner = PyThread_get_thread_ident()
        return 0

    cdef void leave(self) noexcept:
        self.root().owner = 0


cdef class Blob:
    """A named array (`data`) and its gradient (`diff`): live, writable float32 views in C order.

    Writing through a view takes effect whatever layout the engine keeps, and a view outlives blob and net. Made by a
    Net only.
    """

    cdef shared_ptr[CBlob] blob
    cdef Guard guard
    cdef bint fixed

    def __init__(self):
        raise TypeError("blobs are made by a Net")

    @property
    def name(self) -> str:
        return self.blob.get().name

    @property
    def data(self):
        self.guard.check_free()
        return tensor_view(self.blob.get().data)

    @property
    def diff(self):
        self.guard.check_free()
        return tensor_view(self.blob.get().diff)

    @property
    def shape(self) -> tuple:
        return tuple_of(self.blob.get().shape())

    @property
    def count(self) -> int:
        return self.blob.get().data.count()

    def reshape(self, *extents) -> None:
        """Sets the shape; Net.reshape() or the next forward gives the layers below theirs."""
        self.guard.check_free()
        cdef Shape shape = shape_of(extents)
        if self.fixed and shape_count(shape) != self.blob.get().data.count():
            raise EngineError(f"parameter {self.name} has {self.count} values; it cannot be reshaped to {extents}")
        self.blob.get().reshape(shape)

    def legacy_extent(self, int axis) -> int:
        """The extent of `axis` in Caffe's four-axis view of the shape; raises EngineError for more axes."""
        cdef size_t axes = self.blob.get().shape().size()
        if axes > 4:
            raise EngineError(f"blob {self.name} has {axes} axes; num, channels, height, width name the first four")
        return self.blob.get().shape()[axis] if axis < <int>axes else 1

    @property
    def num(self) -> int:
        return self.legacy_extent(0)

    @property
    def channels(self) -> int:
        return self.legacy_extent(1)

    @property
    def height(self) -> int:
        return self.legacy_extent(2)

    @property
    def width(self) -> int:
        return self.legacy_extent(3)

    def __repr__(self) -> str:
        return f"<Blob {self.name} {self.shape}>"


cdef Blob blob_of(const shared_ptr[CBlob]& blob, Guard guard, bint fixed):
    cdef Blob result = Blob.__new__(Blob)
    result.blob = blob
    result.guard = guard
    result.fixed = fixed
    return result


# ---- layers in Python ----

cdef object _building = threading.local()  # `guard`: of the net that this thread builds


cdef class Script:
    """The object of a Python layer. It does not hold its net, which holds it."""

    cdef object layer
    cdef Guard guard
    cdef list params  # the Blobs that its setup has declared


def new_blob(shape) -> Blob:
    """A blob of zeros: a parameter that the setup of a Python layer declares."""
    cdef shared_ptr[CBlob] blob = make_shared[CBlob]()
    blob.get().reshape(shape_of(shape))
    return blob_of(blob, getattr(_building, "guard", None) or Guard(), True)


cdef Outcome outcome_of(error) noexcept:
    from .python_layer import describe_error

    cdef Outcome outcome
    try:
        outcome.reason = <string>describe_error(error)
    except BaseException:  # it may have any __str__
        outcome.reason = <string>type(error).__name__
    outcome.cause = keep_object(error)
    return outcome


cdef Outcome create_script(const CMessage& param, CPhase phase, shared_ptr[void]& to) noexcept with gil:
    from .python_layer import make_layer

    cdef Script script
    cdef Outcome outcome
    cdef const CMessage* fields
    try:
        fields = &param.message(b"python_param")
        script = Script()
        script.guard = _building.guard
        script.layer = make_layer(
            param.text(b"name"), fields.text(b"module"), fields.text(b"layer"), fields.text(b"param_str"), <int>phase,
        )
        (&to)[0] = keep_object(script)
    except BaseException as error:
        outcome = outcome_of(error)
    return outcome


cdef Outcome run_script(
    void* to, ScriptVerb verb, const vector[CBlob*]& bottom, const vector[CBlob*]& top,
    const vector[bool]& propagate_down,
) noexcept with gil:
    cdef Script script = <Script>to
    cdef Guard guard = script.guard.root()
    cdef Outcome outcome
    guard.inside += 1
    try:
        bottoms = [blob_of(bottom[i].shared_from_this(), script.guard, False) for i in range(bottom.size())]
        tops = [blob_of(top[i].shared_from_this(), script.guard, False) for i in range(top.size())]
        if verb == ScriptVerb.kSetup:
            script.layer.setup(bottoms, tops)
            script.params = list(script.layer.blobs)
            if not all(isinstance(blob, Blob) for blob in script.params):
                raise EngineError("its `blobs` may only hold what `blobs.add_blob(...)` adds")
        elif verb == ScriptVerb.kReshape:
            script.layer.reshape(bottoms, tops)
        elif verb == ScriptVerb.kForward:
            script.layer.forward(bottoms, tops)
        else:
            script.layer.backward(tops, [<bint>propagate_down[i] for i in range(propagate_down.size())], bottoms)
    except BaseException as error:
        outcome = outcome_of(error)
    guard.inside -= 1
    return outcome


cdef vector[shared_ptr[CBlob]] script_params(void* to) noexcept with gil:
    cdef vector[shared_ptr[CBlob]] params
    cdef Blob blob
    for blob in (<Script>to).params:
        params.push_back(blob.blob)
    return params


cdef ScriptHost _host
_host.create = create_script
_host.run = run_script
_host.params = script_params
set_script_host(_host)


# ---- nets and solvers ----

cdef class Net:
    """The C++ net; net.py gives it pycaffe's face."""

    cdef shared_ptr[CNet] net
    cdef Guard guard
    cdef bint borrows  # some parameters lie in another net's memory
    # Fills data layers before a pass and writes files after it (data_layers.py); None in most nets.
    cdef public object data_layers

    def __init__(
        self, message, int phase, int64_t level, stages, uint64_t seed, shapes, memory, bint fuse, precision,
        bint winograd
    ):
        cdef CMessage param = message_of(message)
        cdef NetState state = state_of(phase, level, stages)
        cdef map[string, Shape] supplied = shapes_of(shapes)
        cdef NetOptions options
        options.memory = memory_of(memory)
        options.fuse = fuse
        options.precision = precision_of(precision)
        options.winograd = winograd
        self.guard = Guard()
        outer = getattr(_building, "guard", None)  # a layer in Python may build a net of its own
        _building.guard = self.guard
        self.guard.enter()
        try:
            with nogil:
                self.net.reset(new CNet(param, state, seed, supplied, options))
        finally:
            self.guard.leave()
            _building.guard = outer

    def blob(self, int index) -> Blob:
        return blob_of(self.net.get().blobs().at(index), self.guard, False)

    def blobs(self) -> list:
        return [blob_of(self.net.get().blobs()[i], self.guard, False) for i in range(self.net.get().blobs().size())]

    def layers(self) -> list:
        """Of each layer: place in the message (-1: Split), name, type, numbers of bottoms and tops, parameters, and the
        object of those that are written in Python.
        """
        cdef const NetLayer* layer
        cdef void* script
        result = []
        for i in range(self.net.get().layers().size()):
            layer = &self.net.get().layers()[i]
            script = script_of(dereference(layer.layer.get()))
            params = [blob_of(layer.layer.get().params[k], self.guard, True) for k in range(layer.layer.get().params.size())]
            result.append((
                layer.index, layer.name, layer.type, list_of(layer.bottom_ids), list_of(layer.top_ids), params,
                (<Script>script).layer if script != NULL else None,
            ))
        return result

    def inputs(self) -> list:
        return list_of(self.net.get().inputs())

    def outputs(self) -> list:
        return list_of(self.net.get().outputs())

    def loss_weights(self) -> list:
        return [self.net.get().loss_weight(i) for i in range(<int>self.net.get().blobs().size())]

    def learnable(self) -> list:
        """Of each parameter with a memory of its own: owner, place there, shape, lr_mult, decay_mult."""
        cdef const Learnable* param
        result = []
        for i in range(self.net.get().learnable().size()):
            param = &self.net.get().learnable()[i]
            shape = tuple_of(param.blob.get().shape())
            result.append((param.layer, param.index, shape, param.lr_mult, param.decay_mult))
        return result

    def gradients(self) -> list:
        """Of each layer: which bottoms, and which parameters, its backward pass computes gradients for."""
        cdef const NetLayer* layer
        result = []
        for i in range(self.net.get().layers().size()):
            layer = &self.net.get().layers()[i]
            bottoms = [layer.needs_backward and layer.propagate_down[k] for k in range(layer.propagate_down.size())]
            params = [
                layer.needs_backward and layer.layer.get().param_gradient[k]
                for k in range(layer.layer.get().param_gradient.size())
            ]
            result.append((bottoms, params))
        return result

    def absorbed(self) -> list:
        """Of each layer: how many of those after it its forward pass does as well, and its backward pass."""
        return [
            (self.net.get().layers()[i].absorbed, self.net.get().layers()[i].absorbed_backward)
            for i in range(self.net.get().layers().size())
        ]

    def layouts(self) -> list:
        """Of each blob: the layout that its data has now, in oneDNN's words (nChw16c); "" for row-major."""
        return [
            <str>layout_name(self.net.get().blobs()[i].get().data.layout())
            for i in range(self.net.get().blobs().size())
        ]

    def shared(self) -> list:
        """Of each layer: which tops are another name for the memory of a bottom (Split, Reshape), by the last pass."""
        cdef const NetLayer* layer
        result = []
        for i in range(self.net.get().layers().size()):
            layer = &self.net.get().layers()[i]
            result.append([
                any([
                    layer.bottom[b] != layer.top[t] and layer.top[t].data.shares_with(layer.bottom[b].data)
                    for b in range(layer.bottom.size())
                ])
                for t in range(layer.top.size())
            ])
        return result

    def forward(self, int begin, int end, bint new_pass=True) -> float:
        cdef double loss
        self.guard.enter()
        try:
            if self.data_layers is not None:
                self.tend(self.data_layers.fill, begin, end)
            with nogil:
                loss = self.net.get().forward(begin, end, new_pass)
            if self.data_layers is not None:
                self.tend(self.data_layers.write, begin, end)
        finally:
            self.guard.leave()
        return loss

    cdef int tend(self, work, int begin, int end) except -1:
        # Python's part of a pass, which looks at blobs as the code of Python layers does.
        cdef Guard guard = self.guard.root()
        guard.inside += 1
        try:
            work(self, begin, end)
        finally:
            guard.inside -= 1
        return 0

    def backward(self, int begin, int end) -> None:
        self.guard.enter()
        try:
            with nogil:
                self.net.get().backward(begin, end)
        finally:
            self.guard.leave()

    def reshape(self) -> None:
        self.guard.enter()
        try:
            with nogil:
                self.net.get().reshape()
        finally:
            self.guard.leave()

    def share_params(self, Net other) -> None:
        self.guard.check_free()
        other.guard.check_free()
        if self.net.get().share_params(dereference(other.net)):
            self.borrows = True
        if self.guard.root() is not other.guard.root():
            self.guard.root().joined = other.guard.root()

    def clear_param_diffs(self) -> None:
        self.guard.check_free()
        self.net.get().clear_param_diffs()

    def set_seed(self, uint64_t seed) -> None:
        self.guard.check_free()
        self.net.get().set_seed(seed)

    cdef flat(self, bint diff):
        self.guard.check_free()
        self.check_owns()
        cdef View view = View()
        view.set_shape(Shape(1, self.net.get().flat_count()))
        for i in range(self.net.get().learnable().size()):
            if diff:
                view.pin(self.net.get().learnable()[i].blob.get().diff)
            else:
                view.pin(self.net.get().learnable()[i].blob.get().data)
        view.memory = self.net.get().flat_diff() if diff else self.net.get().flat_data()
        return as_array(view)

    cdef int check_owns(self) except -1:
        if self.borrows:
            raise EngineError(
                "this net shares parameters of another one, whose memory is not its own: train that one, and let others "
                "share with it"
            )
        return 0

    @property
    def flat_data(self):
        return self.flat(False)

    @property
    def flat_diff(self):
        return self.flat(True)


cdef class Solver:
    """The C++ solver on a net; solver.py runs the iterations."""

    cdef unique_ptr[CSolver] solver
    cdef Net net

    def __init__(self, message, Net net):
        cdef CMessage param = message_of(message)
        self.net = net
        self.solver.reset(new CSolver(param, dereference(net.net)))

    def apply_update(self) -> None:
        self.net.check_owns()
        self.net.guard.enter()
        try:
            with nogil:
                use_threads()
                self.solver.get().apply_update()
        finally:
            self.net.guard.leave()

    @property
    def iter(self) -> int:
        return self.solver.get().iter()

    @iter.setter
    def iter(self, int64_t iter) -> None:
        self.solver.get().set_iter(iter)

    def rate(self) -> float:
        return self.solver.get().rate()

    @property
    def current_step(self) -> int:
        return self.solver.get().current_step()

    def restore(self, int64_t iter, int64_t current_step) -> None:
        self.solver.get().restore(iter, current_step)

    @property
    def flat_history(self):
        return flat_view(self.solver.get().history(), 0, Shape(1, self.solver.get().history_count()))

    def history(self) -> list:
        cdef CNet* net = self.net.net.get()
        cdef int64_t params = <int64_t>net.learnable().size()
        cdef int64_t start
        result = []
        for slot in range(self.solver.get().history_blobs() // params if params else 0):
            for i in range(params):
                start = slot * net.flat_count() + net.learnable()[i].offset
                result.append(flat_view(self.solver.get().history(), start, net.learnable()[i].blob.get().shape()))
        return result


# ---- rows ----

cdef class Transformer:
    """What a `transform_param` does to rows: crop, mirror, mean, scale, exactly as Caffe's data layers; and what it has
    beyond Caffe, random_resized_crop say.

    `param` is a TransformationParameter, `mean` the mean image (C × H × W) that its mean_file names. Raises EngineError
    for settings that make no sense.
    """

    cdef unique_ptr[CTransformer] transformer

    def __init__(self, param, int phase, mean=None):
        import numpy

        cdef CMessage message = message_of(param)
        cdef CPhase c_phase = state_of(phase, 0, ()).phase
        cdef vector[float] values
        cdef Shape shape
        cdef const float[::1] flat
        if mean is not None:
            array = numpy.ascontiguousarray(mean, dtype=numpy.float32)
            shape = shape_of(array.shape)
            flat = array.reshape(-1)
            if flat.shape[0]:
                values.assign(&flat[0], &flat[0] + flat.shape[0])
        self.transformer.reset(new CTransformer(message, c_phase, values, shape))

    @property
    def augments(self) -> bool:
        """Whether this takes much longer than copying rows."""
        return self.transformer.get().augments()

    def output_shape(self, row_shape) -> tuple:
        """The shape of a row after the crop; raises EngineError where crop, mean or an augmentation do not fit."""
        return tuple_of(self.transformer.get().output_shape(shape_of(row_shape)))

    def __call__(self, rows, out, uint64_t seed, int64_t first=0) -> None:
        """Transforms `rows` (N × ..., uint8 or float32) into `out` (N × output_shape, float32, C order).

        Images may be views with any strides, of an image with its channels last say. Random choices (TRAIN's crops,
        mirrors, augmentations) are a function of `seed` and the row's number, which is `first` for the first of them. Runs in
        the engine's threads, without the GIL. A batch is ready after `finish`. Raises EngineError when shapes or types do not fit.
        """
        import numpy

        if not isinstance(rows, numpy.ndarray) or rows.dtype not in (numpy.uint8, numpy.float32) or rows.ndim == 0:
            raise EngineError("rows must be an array of uint8 or float32, the first axis counting rows")
        cdef Shape row = shape_of(rows.shape[1:])
        want = (rows.shape[0], *self.output_shape(rows.shape[1:]))
        if not isinstance(out, numpy.ndarray) or out.shape != want:
            raise EngineError(f"out must be an array of float32 of shape {want}")
        cdef float[::1] target = flat_floats(out)
        cdef int64_t count = rows.shape[0]
        if rows.size == 0:
            return
        if rows.ndim != 4 or any(step % rows.itemsize for step in rows.strides):
            rows = numpy.ascontiguousarray(rows)
        cdef Shape strides
        for step in rows.strides:
            strides.push_back(step // rows.itemsize)
        cdef size_t place = rows.ctypes.data
        if rows.dtype == numpy.uint8:
            with nogil:
                use_threads()
                self.transformer.get().transform(<const uint8_t*>place, count, row, strides, seed, first, &target[0])
        else:
            with nogil:
                use_threads()
                self.transformer.get().transform(<const float*>place, count, row, strides, seed, first, &target[0])

    def finish(self, batch, uint64_t seed) -> None:
        """What has to wait until all rows of a batch are transformed: mixup, in place, a function of `seed`.

        batch: N × output_shape, float32, C order. Runs as a call does.
        """
        cdef float[::1] values = flat_floats(batch)
        cdef int64_t rows = batch.shape[0] if batch.ndim else 0
        if batch.size == 0:
            return
        with nogil:
            use_threads()
            self.transformer.get().finish(seed, rows, values.shape[0] // rows, &values[0])


cdef float[::1] flat_floats(array):
    """The values of an array of float32 that can be written as they lie; raises EngineError."""
    import numpy

    if not isinstance(array, numpy.ndarray) or array.dtype != numpy.float32:
        raise EngineError("out must be an array of float32")
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise EngineError("out must be writable and in C order")
    return array.reshape(-1)
