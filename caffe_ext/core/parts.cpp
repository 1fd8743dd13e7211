#include "core/parts.h"

#include <algorithm>
#include <numeric>

#include "core/memory.h"

namespace sparknet {

struct Parts::Block {
  std::shared_ptr<float> memory;
  std::vector<std::weak_ptr<float>> parts;
  std::weak_ptr<float> whole;
};

namespace {

// The deleters of what a block hands out: by them is known whether memory is of a block. Each has a use count of its
// own, since a write to one array leaves the others as they are. They let go of the block when they are called: as
// objects they live on while the block's weak pointers do, for ever.
struct OfPart {
  std::shared_ptr<Parts::Block> block;
  void operator()(float*) { block.reset(); }
};

struct OfWhole {
  std::shared_ptr<Parts::Block> block;
  void operator()(float*) { block.reset(); }
};

}  // namespace

std::shared_ptr<float> Place::take(int64_t floats) const { return parts->take(index, floats); }

Parts::Parts(const std::vector<int64_t>& floats) : begins_(floats.size() + 1, 0) {
  std::partial_sum(floats.begin(), floats.end(), begins_.begin() + 1);
}

std::shared_ptr<float> Parts::take(size_t index, int64_t floats) {
  if (floats != begins_[index + 1] - begins_[index]) return nullptr;
  std::shared_ptr<Block> block = block_.lock();
  if (!block || !block->parts[index].expired() || !block->whole.expired()) {
    block = std::make_shared<Block>();
    if (outer_) block->memory = outer_->take(begins_.back());
    if (!block->memory) block->memory = allocate(begins_.back());
    block->parts.resize(begins_.size() - 1);
    block_ = block;
  }
  std::shared_ptr<float> part(block->memory.get() + begins_[index], OfPart{block});
  block->parts[index] = part;
  return part;
}

std::shared_ptr<float> Parts::whole(const std::vector<const float*>& begins) {
  const std::shared_ptr<Block> block = block_.lock();
  if (!block) return nullptr;
  for (size_t i = 0; i < begins.size(); ++i) {
    if (block->parts[i].expired() || begins[i] != block->memory.get() + begins_[i]) return nullptr;
  }
  std::shared_ptr<float> whole = block->whole.lock();
  if (!whole) {
    whole = std::shared_ptr<float>(block->memory.get(), OfWhole{block});
    block->whole = whole;
  }
  return whole;
}

bool in_use_elsewhere(const std::shared_ptr<float>& memory) {
  if (memory.use_count() > 1) return true;
  if (const auto* part = std::get_deleter<OfPart>(memory)) {
    return !part->block->whole.expired() || in_use_elsewhere(part->block->memory);
  }
  if (const auto* whole = std::get_deleter<OfWhole>(memory)) {
    const auto& parts = whole->block->parts;
    return std::any_of(parts.begin(), parts.end(), [](const auto& part) { return !part.expired(); }) ||
           in_use_elsewhere(whole->block->memory);
  }
  return false;
}

}  // namespace sparknet
