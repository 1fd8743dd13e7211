#include "core/tensor.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "core/dnnl_util.h"
#include "core/error.h"
#include "core/memory.h"

namespace sparknet {

namespace {

// The limits that Caffe sets on a blob.
constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxAxes = 32;

uint64_t next_version() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

}  // namespace

int64_t count(const Shape& shape) {
  if (shape.size() > kMaxAxes) fail(ErrorKind::kShape, "a blob has at most ", kMaxAxes, " axes, not ", shape.size());
  // As if no extent were 0: products of some of the extents are within the limit too.
  int64_t product = 1;
  for (const int64_t extent : shape) {
    if (extent < 0) fail(ErrorKind::kShape, "negative extent in shape ", to_string(shape));
    if (product > kMaxCount / std::max<int64_t>(extent, 1)) {
      fail(ErrorKind::kMemory, "shape ", to_string(shape), " has more than 2^31 - 1 elements");
    }
    product *= std::max<int64_t>(extent, 1);
  }
  return count(shape, 0, static_cast<int>(shape.size()));
}

int64_t count(const Shape& shape, int begin, int end) {
  int64_t product = 1;
  for (int axis = begin; axis < end; ++axis) {
    if (shape[axis] < 0) fail(ErrorKind::kShape, "negative extent in shape ", to_string(shape));
    if (shape[axis] != 0 && product > kMaxCount / shape[axis]) {
      fail(ErrorKind::kMemory, "shape ", to_string(shape), " has more than 2^31 - 1 elements");
    }
    product *= shape[axis];
  }
  return product;
}

std::string to_string(const Shape& shape) {
  if (shape.empty()) return "scalar";
  std::string text;
  for (const int64_t extent : shape) text += (text.empty() ? "" : " × ") + std::to_string(extent);
  return text;
}

int canonical_axis(const Shape& shape, int64_t axis, const char* field) {
  const auto axes = static_cast<int64_t>(shape.size());
  if (axis < -axes || axis >= axes) {
    fail(ErrorKind::kField, field, " ", axis, " does not exist: the bottom has ", axes, " axes (", to_string(shape),
         ")");
  }
  return static_cast<int>(axis < 0 ? axis + axes : axis);
}

class Storage {
 public:
  bool plain_valid = false;
  bool blocked_valid = false;  // neither: all zeros
  bool dropped = false;        // zeros that stand for values nobody needed any more
  // Atomic: a view may be dropped by another thread than the one that computes.
  std::atomic<int> pins{0};
  std::atomic<uint64_t> version{next_version()};

  // Forgets values and memory that is too small; `floats` is what the row-major form takes.
  void resize(int64_t floats) {
    if (floats == floats_) return;
    if (placed_) {
      fail(ErrorKind::kState, "these values are a parameter's, of ", floats_, " elements, and cannot become ", floats);
    }
    if (pins > 0 && floats > plain_capacity_) {
      // Whoever holds the old memory keeps it alive through its own reference.
      plain_.reset();
      plain_capacity_ = 0;
    }
    floats_ = floats;
    clear();
  }

  void clear() {
    release_plain();
    release_blocked();
    changed();
  }

  void drop() {
    if (visible()) return;
    clear();
    dropped = true;
  }

  void place(std::shared_ptr<float> memory) {
    clear();
    plain_ = std::move(memory);
    plain_capacity_ = floats_;
    placed_ = true;
  }

  // For a tensor of `floats` elements: another one that shares the values may have been given another number since.
  Storage& holding(int64_t floats) {
    resize(floats);
    return *this;
  }

  bool holds(int64_t floats) const { return floats == floats_; }

  const float* read() {
    if (plain_valid) return plain_.get();
    // Not valid: nobody shares it.
    float* values = own_plain();
    if (blocked_valid) {
      const auto& desc = layout_->desc;
      reorder(wrap_memory(desc, blocked_.get()), wrap_memory(plain_desc(desc.get_dims()), values));
    } else {
      std::memset(values, 0, floats_ * sizeof(float));
    }
    plain_valid = true;
    return values;
  }

  float* write() {
    read();
    if (plain_is_shared()) {
      const std::shared_ptr<float> old = std::move(plain_);
      plain_.reset();
      std::memcpy(own_plain(), old.get(), floats_ * sizeof(float));
    }
    release_blocked();
    changed();
    return plain_.get();
  }

  float* overwrite() {
    release_blocked();
    float* values = own_plain(true);
    plain_valid = true;
    changed();
    return values;
  }

  const float* read_as(const LayoutPtr& layout) {
    if (!layout) return read();
    if (blocked_valid && same_layout(layout_, layout)) return blocked_.get();
    if (blocked_valid && !plain_valid && layout_->desc.get_dims() == layout->desc.get_dims()) {
      // From one blocked layout to another: the old one is dropped, the row-major form stays stale.
      const auto old_memory = std::move(blocked_);
      const auto old_layout = std::move(layout_);
      float* values = own_blocked(layout, true);
      reorder(wrap_memory(old_layout->desc, old_memory.get()), wrap_memory(layout->desc, values));
      return values;
    }
    const float* from = read();
    release_blocked();
    float* values = own_blocked(layout, true);
    reorder(wrap_memory(plain_desc(layout->desc.get_dims()), from), wrap_memory(layout->desc, values));
    blocked_valid = true;
    return values;
  }

  float* overwrite_as(const LayoutPtr& layout, bool pads) {
    if (!layout) return overwrite();
    release_plain();
    float* values = own_blocked(layout, pads, true);
    blocked_valid = true;
    changed();
    return values;
  }

  // Has the values of `other` from here on; both use the same memory until one of them is written to.
  void copy(Storage& other) {
    if (&other == this) return;
    if (visible() || other.visible()) {
      const float* from = other.read();
      std::memcpy(overwrite(), from, floats_ * sizeof(float));
      return;
    }
    plain_ = other.plain_valid ? other.plain_ : nullptr;
    plain_capacity_ = plain_ ? floats_ : 0;
    plain_valid = other.plain_valid;
    blocked_ = other.blocked_valid ? other.blocked_ : nullptr;
    layout_ = other.blocked_valid ? other.layout_ : nullptr;
    blocked_valid = other.blocked_valid;
    changed();
  }

  bool adopt(std::shared_ptr<float> memory, const LayoutPtr& layout) {
    if (visible()) return false;
    release_plain();
    release_blocked();
    if (layout) {
      blocked_ = std::move(memory);
      layout_ = layout;
      blocked_valid = true;
    } else {
      plain_ = std::move(memory);
      plain_capacity_ = floats_;
      plain_valid = true;
    }
    changed();
    return true;
  }

  std::shared_ptr<float> share_as(const LayoutPtr& layout) {
    if (visible()) return nullptr;
    read_as(layout);
    return layout ? blocked_ : plain_;
  }

  void prefer(const std::optional<Place>& place) {
    preferred_ = place;
    if (parts_) parts_->lie_in(place);
  }

  void consist_of(std::shared_ptr<Parts> parts) {
    parts_ = std::move(parts);
    if (parts_) parts_->lie_in(preferred_);
  }

  LayoutPtr layout() const { return blocked_valid ? layout_ : nullptr; }

  NativeView native() {
    if (blocked_valid) return {blocked_.get(), layout_count(*layout_), layout_};
    return {read(), floats_, nullptr};
  }

  void settle() {
    if (pins == 0) return;
    read();
    release_blocked();
  }

  void unpin() {
    --pins;
    // Values may have changed while nobody could see it.
    version = next_version();
  }

  std::shared_ptr<float> plain_memory() {
    if (plain_is_shared()) {
      write();
    } else if (!plain_valid) {
      own_plain();
    }
    return plain_;
  }

 private:
  // From outside, where the memory is.
  bool visible() const { return pins > 0 || placed_; }

  // Views from outside hold the memory, too, but they pin it.
  bool plain_is_shared() const { return !visible() && in_use_elsewhere(plain_); }

  void changed() {
    dropped = false;
    version = next_version();
  }

  void release_plain() {
    plain_valid = false;
    if (visible()) return;
    plain_.reset();
    plain_capacity_ = 0;
  }

  void release_blocked() {
    blocked_valid = false;
    blocked_.reset();
    layout_.reset();
  }

  std::shared_ptr<float> allocate_preferred(int64_t floats) const {
    std::shared_ptr<float> memory = preferred_ ? preferred_->take(floats) : nullptr;
    return memory ? memory : allocate(floats);
  }

  // Memory that can be written to; what it holds is undefined where it was shared, or too small. `anew`: for values
  // that replace all others, so that those of the preferred place are out of use.
  float* own_plain(bool anew = false) {
    if (!plain_ || plain_capacity_ < floats_ || plain_is_shared()) {
      plain_.reset();
      plain_ = anew ? allocate_preferred(floats_) : allocate(floats_);
      plain_capacity_ = floats_;
    }
    return plain_.get();
  }

  float* own_blocked(const LayoutPtr& layout, bool pads, bool anew = false) {
    if (blocked_ && !in_use_elsewhere(blocked_) && same_layout(layout_, layout)) return blocked_.get();
    const int64_t floats = layout_count(*layout);
    blocked_.reset();
    blocked_ = anew ? allocate_preferred(floats) : allocate(floats);
    layout_ = layout;
    if (floats != floats_ && !pads) std::memset(blocked_.get(), 0, floats * sizeof(float));
    return blocked_.get();
  }

  int64_t floats_ = 1;
  bool placed_ = false;  // in memory from outside, which cannot grow
  std::shared_ptr<float> plain_;
  int64_t plain_capacity_ = 0;
  std::shared_ptr<float> blocked_;
  LayoutPtr layout_;
  std::optional<Place> preferred_;
  std::shared_ptr<Parts> parts_;
};

Tensor::Tensor() : storage_(std::make_shared<Storage>()) {}

void Tensor::reshape(const Shape& shape) {
  const int64_t elements = sparknet::count(shape);
  storage_->resize(elements);
  count_ = elements;
  shape_ = shape;
}

const float* Tensor::read() const { return storage_->holding(count_).read(); }
float* Tensor::write() { return storage_->holding(count_).write(); }
float* Tensor::overwrite() { return storage_->holding(count_).overwrite(); }
const float* Tensor::read_as(const LayoutPtr& layout) const { return storage_->holding(count_).read_as(layout); }
float* Tensor::overwrite_as(const LayoutPtr& layout, bool pads) {
  return storage_->holding(count_).overwrite_as(layout, pads);
}
LayoutPtr Tensor::layout() const { return storage_->holding(count_).layout(); }
NativeView Tensor::native() const { return storage_->holding(count_).native(); }
void Tensor::zero() { storage_->clear(); }
void Tensor::drop() { storage_->drop(); }
bool Tensor::is_zero() const { return !storage_->plain_valid && !storage_->blocked_valid; }

void Tensor::share(const Tensor& other) {
  if (storage_ == other.storage_) return;
  if (other.count_ != count_) {
    fail(ErrorKind::kShape, "cannot share values between ", to_string(shape_), " and ", to_string(other.shape_));
  }
  storage_ = other.storage_;
}

void Tensor::copy(const Tensor& other) {
  if (other.count_ != count_) {
    fail(ErrorKind::kShape, "cannot copy values from ", to_string(other.shape_), " to ", to_string(shape_));
  }
  storage_->holding(count_).copy(other.storage_->holding(count_));
}

bool Tensor::adopt(std::shared_ptr<float> memory, const LayoutPtr& layout) {
  return storage_->holding(count_).adopt(std::move(memory), layout);
}
std::shared_ptr<float> Tensor::share_as(const LayoutPtr& layout) const {
  return storage_->holding(count_).share_as(layout);
}
void Tensor::prefer(const std::optional<Place>& place) { storage_->prefer(place); }
void Tensor::consist_of(std::shared_ptr<Parts> parts) { storage_->consist_of(std::move(parts)); }

void Tensor::place(std::shared_ptr<float> memory) { storage_->place(std::move(memory)); }
std::shared_ptr<float> Tensor::memory() {
  if (!storage_->holds(count_)) {
    fail(ErrorKind::kState, "its values are those of another blob too, which has been reshaped: call Net.reshape()");
  }
  if (storage_->dropped) {
    fail(ErrorKind::kState,
         "its values were dropped when no layer needed them any more: build the net with memory=\"all\"");
  }
  return storage_->plain_memory();
}
uint64_t Tensor::version() const { return storage_->pins > 0 ? 0 : storage_->version.load(); }
void Tensor::pin() { ++storage_->pins; }
void Tensor::unpin() { storage_->unpin(); }
void Tensor::settle() const {
  // Else they are the other's to settle.
  if (storage_->holds(count_)) storage_->settle();
}

}  // namespace sparknet
