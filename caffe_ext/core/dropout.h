// Which elements drop out: a function of a key and their place, so that there is no mask to keep.
#pragma once

#include <algorithm>

#include "core/error.h"
#include "core/message.h"
#include "core/parallel.h"
#include "core/random.h"

namespace sparknet {

// The field dropout_ratio of `fields`; Error(kField) unless it is a probability below 1.
inline double read_dropout_ratio(const Message& fields) {
  const double ratio = fields.real("dropout_ratio");
  if (!(ratio >= 0.0 && ratio < 1.0)) {
    fail(ErrorKind::kField, "dropout_ratio must be at least 0 and less than 1, not ", ratio);
  }
  return ratio;
}

// Calls body(i, whether it stays) for each of `count` elements, each of which drops out with probability `ratio`.
template <typename Body>
void draw_dropout(uint64_t key, double ratio, int64_t count, const Body& body) {
  constexpr int64_t kBlock = 4;
  const double threshold = ratio * 4294967296.0;  // of 2^32
  parallel_for((count + kBlock - 1) / kBlock, kElementGrain / kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const auto words = philox(key, static_cast<uint64_t>(block));
      const int64_t first = block * kBlock, n = std::min(kBlock, count - first);
      for (int64_t i = 0; i < n; ++i) body(first + i, words[i] >= threshold);
    }
  });
}

}  // namespace sparknet
