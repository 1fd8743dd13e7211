// Arrays of float in the layout that suits who wrote them last.
//
// A tensor's values lie row-major ("plain"), or in a layout of oneDNN's choosing ("blocked"), or both; they are
// reordered when somebody reads them in another layout than they have. This is the idea of Caffe's SyncedMemory, with
// layouts in place of devices.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/parts.h"

namespace sparknet {

using Shape = std::vector<int64_t>;

// The number of elements. Error(kShape) for a negative extent and past 32 axes, Error(kMemory) past 2^31 - 1 elements,
// extents of 0 taken for 1 (Caffe's limits).
int64_t count(const Shape& shape);
// The number of elements of the axes [begin, end).
int64_t count(const Shape& shape, int begin, int end);
// "64 × 1 × 28 × 28"; "scalar" for no axes.
std::string to_string(const Shape& shape);
// `axis` counted from the front; negative ones count from the end. Error(kField) when there is no such axis.
int canonical_axis(const Shape& shape, int64_t axis, const char* field = "axis");

// A oneDNN memory descriptor (core/dnnl_util.h); a null LayoutPtr is row-major.
struct Layout;
using LayoutPtr = std::shared_ptr<const Layout>;

// Its name in oneDNN's words for images (nChw16c); "" for row-major.
std::string layout_name(const LayoutPtr& layout);

// The values of one or several tensors that share them.
class Storage;

// Values in the layout they have, padding of blocked layouts included, for loops that treat all elements alike.
struct NativeView {
  const float* values;
  int64_t count;  // with padding
  LayoutPtr layout;
};

class Tensor {
 public:
  Tensor();

  const Shape& shape() const { return shape_; }
  int64_t count() const { return count_; }
  int axes() const { return static_cast<int>(shape_.size()); }
  int64_t dim(int axis) const { return shape_[axis < 0 ? axis + axes() : axis]; }
  // Sets the shape and allocates nothing; values are kept only when the number of elements stays.
  void reshape(const Shape& shape);

  // Row-major access. `read` and `write` reorder if need be; `overwrite` gives memory whose contents are to be
  // replaced. New tensors, and those after zero(), hold zeros.
  const float* read() const;
  float* write();
  float* overwrite();

  // Access in a given layout (null: row-major). `overwrite_as` with the layout that the values have gives the memory
  // that holds them, so element-wise layers can work in place.
  const float* read_as(const LayoutPtr& layout) const;
  // Padding in the layout holds zeros, which readers count on; `pads`: whoever overwrites writes them, too.
  float* overwrite_as(const LayoutPtr& layout, bool pads = false);
  // The layout in which reading costs nothing.
  LayoutPtr layout() const;
  NativeView native() const;

  void zero();           // lazily
  bool is_zero() const;  // still untouched since zero()
  // zero(), and memory() is an error until the next write: nobody is to take the zeros for the values. Nothing happens
  // to values that are pinned or placed.
  void drop();

  // From here on both tensors have the same values (shapes may differ, counts may not).
  void share(const Tensor& other);
  bool shares_with(const Tensor& other) const { return storage_ == other.storage_; }
  // Takes on the values of `other`, which has as many. Costs nothing: the memory is the same until one of them is
  // written. Where the values of one are pinned or placed they are copied at once.
  void copy(const Tensor& other);
  // The same for all tensors that share their values, and for no other.
  const void* identity() const { return storage_.get(); }
  // Takes on the values in `memory`, in `layout`, without a copy; whoever writes first, here or where the memory is in
  // use besides, gets memory of its own. False, and nothing happens, where the values are pinned or placed.
  bool adopt(std::shared_ptr<float> memory, const LayoutPtr& layout);
  // read_as, of memory that others may adopt; null where the values are pinned or placed.
  std::shared_ptr<float> share_as(const LayoutPtr& layout) const;
  // Where new memory is to be taken from; none: anywhere.
  void prefer(const std::optional<Place>& place);
  // Of which the values are to be the whole; null: of none.
  void consist_of(std::shared_ptr<Parts> parts);
  // Row-major memory from outside, kept alive by `memory`; values so far are lost.
  void place(std::shared_ptr<float> memory);

  // The row-major memory, for who needs it to outlive a reshape. Error(kState) where a tensor that shares it has been
  // given another number of elements since.
  std::shared_ptr<float> memory();

  // Changes with every write; equal versions mean equal values. 0 while pinned, when it cannot be known.
  uint64_t version() const;

  // While pinned, somebody outside holds a pointer to the row-major values and may read and write them between calls.
  void pin();
  void unpin();
  // Makes the row-major values of a pinned tensor the only valid ones, as its holder expects after each call.
  void settle() const;

 private:
  Shape shape_;
  int64_t count_ = 1;
  std::shared_ptr<Storage> storage_;
};

// A named array and its gradient.
struct Blob : std::enable_shared_from_this<Blob> {
  std::string name;
  Tensor data;
  Tensor diff;

  const Shape& shape() const { return data.shape(); }
  int64_t count() const { return data.count(); }
  void reshape(const Shape& shape) {
    data.reshape(shape);
    diff.reshape(shape);
  }
};

}  // namespace sparknet
