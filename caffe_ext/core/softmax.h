// Softmax along one axis, for the layers that have one inside.
//
// Written out rather than given to oneDNN, whose vectorised exponential clamps its argument and thereby turns NaN into
// a number: a diverged net must show it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/parallel.h"

namespace sparknet {

// How softmax and its relatives see an array: `outer` × `channels` × `inner`.
struct SoftmaxView {
  int64_t outer, channels, inner;
};

// Calls body(offset, places) for groups of neighbouring positions: channel c of position p lies at offset + c * inner +
// p. There are at most kPositionGroup positions in a group.
constexpr int64_t kPositionGroup = 64;

template <typename Body>
void for_positions(const SoftmaxView& view, const Body& body) {
  const int64_t groups = (view.inner + kPositionGroup - 1) / kPositionGroup;
  const int64_t work = std::max<int64_t>(1, view.channels * std::min(view.inner, kPositionGroup));
  parallel_for(view.outer * groups, std::max<int64_t>(1, kElementGrain / 8 / work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % groups * kPositionGroup;
      body(i / groups * view.channels * view.inner + first, std::min(kPositionGroup, view.inner - first));
    }
  });
}

// y = exp(x - max x) / sum exp(x - max x); y may be x.
inline void softmax(const float* x, float* y, const SoftmaxView& view) {
  const int64_t channels = view.channels, inner = view.inner;
  if (channels == 0) return;
  for_positions(view, [=](int64_t offset, int64_t places) {
    float most[kPositionGroup], sum[kPositionGroup] = {};
    const float* from = x + offset;
    float* to = y + offset;
    std::copy(from, from + places, most);
    for (int64_t c = 1; c < channels; ++c) {
      for (int64_t p = 0; p < places; ++p) most[p] = std::max(most[p], from[c * inner + p]);
    }
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t p = 0; p < places; ++p) {
        const float value = std::exp(from[c * inner + p] - most[p]);
        to[c * inner + p] = value;
        sum[p] += value;
      }
    }
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t p = 0; p < places; ++p) to[c * inner + p] /= sum[p];
    }
  });
}

}  // namespace sparknet
