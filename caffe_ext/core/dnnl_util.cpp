#include "core/dnnl_util.h"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/memory.h"
#include "core/parallel.h"

namespace sparknet {

namespace {

dnnl::memory::dims strides_of(const dnnl::memory::dims& dims) {
  dnnl::memory::dims strides(dims.size(), 1);
  for (int axis = static_cast<int>(dims.size()) - 2; axis >= 0; --axis) {
    strides[axis] = strides[axis + 1] * std::max<dnnl::memory::dim>(dims[axis + 1], 1);
  }
  return strides;
}

dnnl::memory::desc plain_desc_of(const dnnl::memory::dims& dims) {
  return {dims, dnnl::memory::data_type::f32, strides_of(dims)};
}

// oneDNN has no 0-axis arrays.
dnnl::memory::dims dims_of(const Shape& shape) { return shape.empty() ? Shape{1} : shape; }

}  // namespace

dnnl::engine& dnnl_engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& dnnl_stream() {
  thread_local dnnl::stream stream(dnnl_engine());
  return stream;
}

dnnl::memory::desc plain_desc(const Shape& shape) { return plain_desc_of(dims_of(shape)); }

dnnl::memory::desc transposed_desc(int64_t rows, int64_t columns, dnnl::memory::data_type type) {
  return {{rows, columns}, type, dnnl::memory::format_tag::ba};
}

dnnl::memory::desc any_desc(const Shape& shape, dnnl::memory::data_type type) {
  return {dims_of(shape), type, dnnl::memory::format_tag::any};
}

dnnl::memory::desc channels_last_desc(const Shape& shape, dnnl::memory::data_type type) {
  Shape moved = shape;
  std::rotate(moved.begin() + 1, moved.begin() + 2, moved.end());
  dnnl::memory::dims strides = strides_of(moved);
  std::rotate(strides.begin() + 1, strides.end() - 1, strides.end());
  return {shape, type, strides};
}

dnnl::memory::desc native_desc(const Tensor& tensor) {
  const LayoutPtr layout = tensor.layout();
  // Tensors that share values may differ in shape.
  return layout && layout->desc.get_dims() == tensor.shape() ? layout->desc : plain_desc(tensor.shape());
}

LayoutPtr layout_of(const dnnl::memory::desc& desc) {
  if (desc == plain_desc_of(desc.get_dims())) return nullptr;
  return std::make_shared<const Layout>(desc);
}

bool same_layout(const LayoutPtr& a, const LayoutPtr& b) {
  if (!a || !b) return !a && !b;
  return a == b || a->desc == b->desc;
}

std::optional<int64_t> begin_within(const dnnl::memory::desc& whole, const dnnl::memory::desc& part,
                                    const dnnl::memory::dims& offset) {
  const auto inside = whole.submemory_desc(part.get_dims(), offset, true);
  if (!inside || inside.get_inner_blks() != part.get_inner_blks() || inside.get_inner_idxs() != part.get_inner_idxs() ||
      inside.get_padded_dims() != part.get_padded_dims()) {
    return std::nullopt;
  }
  const dnnl::memory::dims there = inside.get_strides(), alone = part.get_strides(), dims = part.get_dims();
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    if (dims[axis] > 1 && there[axis] != alone[axis]) return std::nullopt;
  }
  return inside.get_submemory_offset();
}

int64_t layout_count(const Layout& layout) { return static_cast<int64_t>(layout.desc.get_size() / sizeof(float)); }

std::string layout_name(const LayoutPtr& layout) {
  if (!layout) return "";
  const dnnl::memory::desc& desc = layout->desc;
  const dnnl::memory::dims strides = desc.get_strides();
  const dnnl::memory::dims blocks = desc.get_inner_blks();
  const dnnl::memory::dims blocked = desc.get_inner_idxs();
  const std::string letters = strides.size() == 5 ? "ncdhw" : strides.size() <= 4 ? "nchw" : "abcdefghijkl";
  std::vector<size_t> order(strides.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return strides[a] > strides[b]; });
  std::string name;
  for (const size_t axis : order) {
    const bool is_blocked = std::find(blocked.begin(), blocked.end(), static_cast<int64_t>(axis)) != blocked.end();
    name += static_cast<char>(is_blocked ? std::toupper(letters[axis]) : letters[axis]);
  }
  for (int i = 0; i < desc.get_inner_nblks(); ++i) name += std::to_string(blocks[i]) + letters[blocked[i]];
  return name;
}

dnnl::memory read_memory(const Tensor& tensor, const dnnl::memory::desc& desc) {
  return wrap_memory(desc, tensor.read_as(layout_of(desc)));
}

dnnl::memory overwrite_memory(Tensor& tensor, const dnnl::memory::desc& desc) {
  // oneDNN's primitives write the padding of what they write.
  return wrap_memory(desc, tensor.overwrite_as(layout_of(desc), true));
}

dnnl::memory make_memory(const dnnl::memory::desc& desc) { return {desc, dnnl_engine()}; }

dnnl::memory wrap_memory(const dnnl::memory::desc& desc, const float* values) {
  // oneDNN takes sources and destinations alike as void*.
  return {desc, dnnl_engine(), const_cast<float*>(values)};
}

void reorder(const dnnl::memory& from, const dnnl::memory& to, bool accumulate) {
  dnnl::primitive_attr attributes;
  if (accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const dnnl::reorder::primitive_desc description(from, to, attributes);
  dnnl::reorder(description).execute(dnnl_stream(), const_cast<dnnl::memory&>(from), const_cast<dnnl::memory&>(to));
  dnnl_stream().wait();
}

void execute(const dnnl::primitive& primitive, const std::unordered_map<int, dnnl::memory>& arguments) {
  primitive.execute(dnnl_stream(), arguments);
  dnnl_stream().wait();
}

dnnl::memory Converted::get(const Tensor& tensor, const dnnl::memory::desc& desc) {
  const auto plain = plain_desc_of(desc.get_dims());
  if (desc == plain) return wrap_memory(desc, tensor.read());
  const uint64_t version = tensor.version();
  const bool fits = copy_ && copy_.get_desc() == desc;
  if (!fits) copy_ = make_memory(desc);
  if (!fits || version == 0 || version != version_) reorder(wrap_memory(plain, tensor.read()), copy_);
  version_ = version;
  return copy_;
}

dnnl::memory Workspace::get(const dnnl::memory::desc& desc) {
  const size_t size = desc.get_size();
  if (!memory_ || size != size_) {
    constexpr size_t kFloat = sizeof(float);
    memory_ = allocate(static_cast<int64_t>((size + kFloat - 1) / kFloat));
    size_ = size;
  }
  return wrap_memory(desc, memory_.get());
}

dnnl::memory Bfloat16Copies::get(const Tensor& tensor, const dnnl::memory::desc& desc) {
  const uint64_t version = tensor.version();
  for (int i = 0; i < 2; ++i) {
    const Copy& copy = copies_[i];
    if (version == 0 || copy.version != version || copy.values.get_desc() != desc) continue;
    last_ = i;
    return copy.values;
  }
  last_ = 1 - last_;
  Copy& copy = copies_[last_];
  copy.version = 0;
  const auto floats = static_cast<int64_t>((desc.get_size() + sizeof(float) - 1) / sizeof(float));
  if (copy.capacity < floats) {
    copy.memory.reset();
    copy.capacity = 0;
    copy.memory = allocate(floats);
    copy.capacity = floats;
  }
  copy.values = wrap_memory(desc, copy.memory.get());
  const LayoutPtr layout = tensor.layout();
  // The primitive may see other dims than the tensor's shape.
  const bool as_it_lies = layout && layout->desc.get_dims() == desc.get_dims();
  reorder(read_memory(tensor, as_it_lies ? layout->desc : plain_desc_of(desc.get_dims())), copy.values);
  copy.version = version;
  return copy.values;
}

void accumulate(const dnnl::memory& gradient, Tensor& diff, const dnnl::memory::dims& shape) {
  const auto plain = plain_desc_of(shape);
  if (gradient.get_desc() == plain) {
    const auto* from = static_cast<const float*>(gradient.get_data_handle());
    float* to = diff.write();
    parallel_for(diff.count(), kElementGrain, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) to[i] += from[i];
    });
    return;
  }
  const bool fresh = diff.is_zero();
  float* values = fresh ? diff.overwrite() : diff.write();
  reorder(gradient, wrap_memory(plain, values), !fresh);
}

}  // namespace sparknet
