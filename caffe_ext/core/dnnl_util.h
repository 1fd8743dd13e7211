// oneDNN: the engine, streams, layouts and the reorder that the rest is built on. Only files that use oneDNN's
// primitives include this: its header takes seconds to compile.
#pragma once

#include <dnnl.hpp>
#include <memory>
#include <optional>
#include <unordered_map>

#include "core/tensor.h"

namespace sparknet {

struct Layout {
  explicit Layout(dnnl::memory::desc description) : desc(std::move(description)) {}
  const dnnl::memory::desc desc;
};

dnnl::engine& dnnl_engine();
// Of the calling thread: two nets may run in two threads.
dnnl::stream& dnnl_stream();

// Row-major, and left to the primitive.
dnnl::memory::desc plain_desc(const Shape& shape);
dnnl::memory::desc any_desc(const Shape& shape, dnnl::memory::data_type type = dnnl::memory::data_type::f32);
// Of a matrix whose transpose is row-major.
dnnl::memory::desc transposed_desc(int64_t rows, int64_t columns,
                                   dnnl::memory::data_type type = dnnl::memory::data_type::f32);
// N × spatial axes × C, for an array of shape N × C × spatial axes.
dnnl::memory::desc channels_last_desc(const Shape& shape, dnnl::memory::data_type type = dnnl::memory::data_type::f32);
// In which a primitive reads the tensor at no cost, as an array of the tensor's shape.
dnnl::memory::desc native_desc(const Tensor& tensor);

// Null where `desc` is row-major for its dims.
LayoutPtr layout_of(const dnnl::memory::desc& desc);
bool same_layout(const LayoutPtr& a, const LayoutPtr& b);
// Where the part of `whole` that begins at `offset` lies in one piece, and there as `part` says: the floats before it.
std::optional<int64_t> begin_within(const dnnl::memory::desc& whole, const dnnl::memory::desc& part,
                                    const dnnl::memory::dims& offset);
// Floats that the layout takes, padding included.
int64_t layout_count(const Layout& layout);

// The tensor's values in `desc` (row-major, blocked alike), ready for a primitive.
dnnl::memory read_memory(const Tensor& tensor, const dnnl::memory::desc& desc);
dnnl::memory overwrite_memory(Tensor& tensor, const dnnl::memory::desc& desc);
// Memory of a primitive's own.
dnnl::memory make_memory(const dnnl::memory::desc& desc);
// A view of memory that somebody else holds.
dnnl::memory wrap_memory(const dnnl::memory::desc& desc, const float* values);

// to = from, or to += from.
void reorder(const dnnl::memory& from, const dnnl::memory& to, bool accumulate = false);

void execute(const dnnl::primitive& primitive, const std::unordered_map<int, dnnl::memory>& arguments);

// A copy of a tensor (a parameter) in the layout that a primitive wants, made anew only when the tensor has changed.
class Converted {
 public:
  dnnl::memory get(const Tensor& tensor, const dnnl::memory::desc& desc);

 private:
  dnnl::memory copy_;
  uint64_t version_ = 0;
};

// Copies of what a layer's primitives read in bfloat16, the last two: a backward pass has an operand of the forward
// pass and a gradient, and reads the latter twice. One for all the layers of a net, since each needs its own no longer
// than the pass.
class Bfloat16Copies {
 public:
  // The tensor's values in `desc`, until the call after the next one.
  dnnl::memory get(const Tensor& tensor, const dnnl::memory::desc& desc);

 private:
  struct Copy {
    std::shared_ptr<float> memory;
    int64_t capacity = 0;  // floats
    dnnl::memory values;
    uint64_t version = 0;
  };

  Copy copies_[2];
  int last_ = 0;
};

// What a primitive leaves behind in its forward pass for its backward pass.
class Workspace {
 public:
  // Memory for `desc`, the same from the forward pass to the backward pass.
  dnnl::memory get(const dnnl::memory::desc& desc);
  void drop() { memory_.reset(); }

 private:
  std::shared_ptr<float> memory_;
  size_t size_ = 0;
};

// Adds `gradient` to a parameter's diff; `shape` row-major dims of the diff as the primitive sees them.
void accumulate(const dnnl::memory& gradient, Tensor& diff, const dnnl::memory::dims& shape);

}  // namespace sparknet
