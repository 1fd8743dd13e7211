// Lean memory: the forward pass keeps what passes from one segment of layers to the next, and the backward pass runs a
// segment forward again before it runs it backward (Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear
// memory cost", 2016). That costs about one forward pass, and the results are the same to the bit.
#include <algorithm>
#include <limits>

#include "core/net.h"

namespace sparknet {

namespace {

// Where a segment may begin: not amid layers that run as one, and only where nothing that is alive there is written
// again later, since the segment's second pass has to find what its first one found.
template <typename Lives>
std::vector<bool> possible_begins(const std::vector<NetLayer>& layers, const Lives& values) {
  std::vector<bool> possible(layers.size(), true);
  for (size_t i = 0; i < layers.size(); ++i) {
    for (int j = 1; j <= layers[i].absorbed; ++j) possible[i + j] = false;
  }
  for (const auto& entry : values) {
    for (int i = entry.second.first_writer + 1; i <= entry.second.last_writer; ++i) possible[i] = false;
  }
  return possible;
}

bool comes_from_outside(const NetLayer& layer) { return layer.bottom.empty() || layer.spec->is_source; }

}  // namespace

// Cuts the layers into segments of about equal size, as many as need the least memory in all: of what passes between
// segments and of the largest segment. Makes what passes between segments `kept`.
void Net::plan_segments(std::map<const void*, Life>& values) {
  const int count = static_cast<int>(layers_.size());
  const bool trains =
      std::any_of(layers_.begin(), layers_.end(), [](const NetLayer& layer) { return layer.needs_backward; });
  if (!trains) return;
  const std::vector<bool> possible = possible_begins(layers_, values);
  std::vector<int64_t> made(count, 0);  // bytes that each layer is the first to write
  for (const auto& entry : values) made[entry.second.first_writer] += entry.second.bytes();
  int64_t total = 0;
  for (const int64_t bytes : made) total += bytes;

  const auto cut = [&](int wanted) {
    std::vector<int> begins = {0};
    int64_t size = 0;
    for (int i = 0; i < count; ++i) {
      if (i > 0 && possible[i] && size >= total / wanted) {
        begins.push_back(i);
        size = 0;
      }
      size += made[i];
    }
    return begins;
  };
  const auto place = [](const std::vector<int>& begins, int layer) {
    return static_cast<int>(std::upper_bound(begins.begin(), begins.end(), layer) - begins.begin()) - 1;
  };
  const auto needs = [&](const std::vector<int>& begins) {
    std::vector<int64_t> within(begins.size(), 0);
    int64_t between = 0;
    for (const auto& entry : values) {
      const Life& life = entry.second;
      const int first = place(begins, life.first_writer);
      (first == place(begins, life.last_user) ? within[first] : between) += life.bytes();
    }
    return between + *std::max_element(within.begin(), within.end());
  };
  constexpr int kMost = 64;
  std::vector<int> best;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int wanted = 1; wanted <= std::min(count, kMost); ++wanted) {
    const std::vector<int> begins = cut(wanted);
    const int64_t bytes = needs(begins);
    if (bytes >= least) continue;
    least = bytes;
    best = begins;
  }

  for (size_t k = 0; k < best.size(); ++k) {
    const int end = k + 1 < best.size() ? best[k + 1] : count;
    Segment segment{best[k], end, true, {}};
    for (int i = segment.begin; i < end; ++i) {
      layers_[i].segment = static_cast<int>(k);
      segment.repeats = segment.repeats && !layers_[i].spec->is_opaque && layers_[i].layer->repeats();
    }
    segments_.push_back(std::move(segment));
  }
  for (const auto& entry : values) {
    // What comes from outside is not made again, so it must not have been written over.
    const Life& life = entry.second;
    if (life.last_writer > life.first_writer && comes_from_outside(layers_[life.first_writer])) {
      segments_[layers_[life.first_writer].segment].repeats = false;
    }
  }
  segments_.back().repeats = false;  // its values are there when the backward pass begins
  for (Segment& segment : segments_) segment.dead.resize(segment.end - segment.begin);
  for (auto& entry : values) {
    Life& life = entry.second;
    Segment& segment = segments_[layers_[life.first_writer].segment];
    if (life.last_user >= segment.end) {
      life.kept = true;
    } else if (segment.repeats && !life.stays) {
      auto& dead = segment.dead[life.last_user - segment.begin];
      dead.insert(dead.end(), life.names.begin(), life.names.end());
    }
  }
}

// Runs the segment forward again, for the backward pass to come.
void Net::repeat(int segment) {
  const Segment& layers = segments_[segment];
  int last = 0;
  for (int i = layers.begin; i < layers.end; i = last + 1) {
    last = layers_[i].layer->fused ? i + layers_[i].absorbed : i;
    if (comes_from_outside(layers_[i])) continue;
    for (int j = i; j <= last; ++j) layers_[j].layer->again = true;
    run(i, last);
    for (int j = i; j <= last; ++j) layers_[j].layer->again = false;
    for (int done = i; done <= last; ++done) {
      for (Tensor* dead : dead_after_forward_[done]) dead->drop();
    }
  }
}

}  // namespace sparknet
