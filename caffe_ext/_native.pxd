# The engine's C++ classes as the binding sees them.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libcpp cimport bool
from libcpp.map cimport map
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

cdef int raise_error() except *

cdef extern from "core/failure.h" namespace "sparknet" nogil:
    cdef cppclass Failure:
        string kind
        string layer
        string type
        string reason
        shared_ptr[void] cause

    Failure current_failure()

cdef extern from "core/error.h" namespace "sparknet" nogil:
    cdef enum class ErrorKind:
        kType

    const char* kind_name(ErrorKind kind)

cdef extern from "core/machine.h" namespace "sparknet" nogil:
    void c_set_num_threads "sparknet::set_num_threads"(int threads) except +raise_error
    int c_num_threads "sparknet::num_threads"()
    void use_threads()
    string c_isa "sparknet::isa"() except +raise_error

cdef extern from "core/memory.h" namespace "sparknet" nogil:
    int64_t c_memory_used "sparknet::memory_used"()
    int64_t c_memory_limit "sparknet::memory_limit"()
    void c_set_memory_limit "sparknet::set_memory_limit"(int64_t size) except +raise_error

cdef extern from "core/message.h" namespace "sparknet" nogil:
    cdef cppclass FieldValue:
        vector[int64_t] integers
        vector[double] reals
        vector[string] texts
        vector[CMessage] messages

    cdef cppclass MessageSchema:
        string name
        map[string, FieldValue] defaults
        map[string, shared_ptr[const MessageSchema]] children

    cdef cppclass CMessage "sparknet::Message":
        CMessage()
        CMessage(shared_ptr[const MessageSchema])
        FieldValue& field(const string& name)
        const string& text(const string& name) except +raise_error
        const CMessage& message(const string& name) except +raise_error

cdef extern from "core/tensor.h" namespace "sparknet" nogil:
    ctypedef vector[int64_t] Shape

    int64_t shape_count "sparknet::count"(const Shape& shape) except +raise_error

    cdef cppclass LayoutPtr:
        pass

    string layout_name(const LayoutPtr& layout)

    cdef cppclass Tensor:
        Tensor()
        const Shape& shape()
        int64_t count()
        shared_ptr[float] memory() except +raise_error
        void pin()
        void unpin()
        void settle() except +raise_error
        LayoutPtr layout()
        bool shares_with(const Tensor& other)

    cdef cppclass CBlob "sparknet::Blob":
        string name
        Tensor data
        Tensor diff
        const Shape& shape()
        void reshape(const Shape& shape) except +raise_error
        shared_ptr[CBlob] shared_from_this() except +raise_error

cdef extern from "core/layer.h" namespace "sparknet" nogil:
    cdef enum class CPhase "sparknet::Phase":
        pass

    cdef enum class CPrecision "sparknet::Precision":
        kFloat32
        kBfloat16

    cdef cppclass Layer:
        vector[shared_ptr[CBlob]] params
        vector[bool] param_gradient
        int64_t multiply_adds(const vector[CBlob*]& bottom, const vector[CBlob*]& top) except +raise_error

    cdef cppclass LayerSpec:
        string type
        string summary
        vector[string] message_fields
        vector[string] positional_fields
        vector[string] extension_fields
        vector[string] bottoms_named
        int min_bottoms
        int max_bottoms
        int min_tops
        int max_tops
        bool equal_tops
        bool may_be_in_place
        bool backward_reads_bottom
        bool backward_reads_top
        bool is_loss
        bool is_source
        int most_params

    cdef cppclass Registry:
        @staticmethod
        const vector[const LayerSpec*]& all()

cdef extern from "core/script.h" namespace "sparknet" nogil:
    cdef cppclass Outcome:
        string reason
        shared_ptr[void] cause

    cdef enum class ScriptVerb:
        kSetup
        kReshape
        kForward
        kBackward

    cdef cppclass ScriptHost:
        Outcome (*create)(const CMessage& param, CPhase phase, shared_ptr[void]& script) noexcept
        Outcome (*run)(void* script, ScriptVerb verb, const vector[CBlob*]& bottom, const vector[CBlob*]& top,
                       const vector[bool]& propagate_down) noexcept
        vector[shared_ptr[CBlob]] (*params)(void* script) noexcept

    void set_script_host(const ScriptHost& host)
    void* script_of(const Layer& layer)

cdef extern from "core/net.h" namespace "sparknet" nogil:
    cdef cppclass NetState:
        CPhase phase
        int64_t level
        vector[string] stages

    cdef enum class CMemory "sparknet::Memory":
        kAll
        kReuse
        kLean

    cdef cppclass NetOptions:
        CMemory memory
        bool fuse
        CPrecision precision
        bool winograd

    cdef cppclass Problem:
        int index
        string layer
        string type
        ErrorKind kind
        string reason
        int bottom

    cdef cppclass NetLayer:
        int index
        string name
        string type
        unique_ptr[Layer] layer
        vector[int] bottom_ids
        vector[int] top_ids
        vector[CBlob*] bottom
        vector[CBlob*] top
        vector[bool] propagate_down
        bool needs_backward
        int absorbed
        int absorbed_backward
        vector[int] param_ids

    cdef cppclass Learnable:
        shared_ptr[CBlob] blob
        string layer
        int index
        float lr_mult
        float decay_mult
        int64_t offset

    cdef cppclass CNet "sparknet::Net":
        CNet(const CMessage& param, const NetState& state, uint64_t seed,
             const map[string, Shape]& supplied, const NetOptions& options) except +raise_error
        @staticmethod
        unique_ptr[CNet] check(const CMessage& param, const NetState& state, const map[string, Shape]& supplied,
                               vector[Problem]& problems) except +raise_error
        double forward(int begin, int end, bool new_pass) except +raise_error
        void backward(int begin, int end) except +raise_error
        void reshape() except +raise_error
        void clear_param_diffs() except +raise_error
        bool share_params(const CNet& other) except +raise_error
        void set_seed(uint64_t seed)
        void settle() except +raise_error
        const vector[NetLayer]& layers()
        const vector[shared_ptr[CBlob]]& blobs()
        bool known(int blob)
        float loss_weight(int blob)
        const vector[int]& inputs()
        const vector[int]& outputs()
        const vector[Learnable]& learnable()
        int64_t flat_count()
        const shared_ptr[float]& flat_data()
        const shared_ptr[float]& flat_diff()

cdef extern from "core/solver.h" namespace "sparknet" nogil:
    cdef cppclass CSolver "sparknet::Solver":
        CSolver(const CMessage& param, CNet& net) except +raise_error
        void apply_update() except +raise_error
        double rate() except +raise_error
        int64_t iter()
        void set_iter(int64_t iter) except +raise_error
        int64_t current_step()
        void restore(int64_t iter, int64_t current_step) except +raise_error
        int64_t history_blobs()
        int64_t history_count()
        const shared_ptr[float]& history()

cdef extern from "core/transform.h" namespace "sparknet" nogil:
    cdef cppclass CTransformer "sparknet::Transformer":
        CTransformer(const CMessage& param, CPhase phase, vector[float] mean, Shape mean_shape) except +raise_error
        Shape output_shape(const Shape& row) except +raise_error
        bool augments()
        void transform[Value](
            const Value* rows, int64_t count, const Shape& row, const Shape& strides, uint64_t seed, int64_t first,
            float* out
        ) except +raise_error
        void finish(uint64_t seed, int64_t rows, int64_t size, float* batch) except +raise_error
