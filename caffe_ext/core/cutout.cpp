#include "core/cutout.h"

#include <algorithm>

#include "core/draws.h"
#include "core/error.h"

namespace sparknet {

Cutout::Cutout(const Message& param) : size_(param.integer("size")), number_(param.integer("number")) {
  if (size_ < 1) fail(ErrorKind::kField, "cutout wants a size, the side of a square in pixels, of at least 1");
  if (number_ < 1) fail(ErrorKind::kField, "the number of cutout must be at least 1");
}

void Cutout::apply(uint64_t seed, int64_t row, int64_t channels, int64_t height, int64_t width, float* image) const {
  Draws draws(seed, Draws::kCutout, row);
  for (int64_t i = 0; i < number_; ++i) {
    const int64_t top = draws.below(height) - size_ / 2, left = draws.below(width) - size_ / 2;
    const int64_t begin = std::max<int64_t>(left, 0), end = std::min(left + size_, width);
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t y = std::max<int64_t>(top, 0); y < std::min(top + size_, height); ++y) {
        float* line = image + (c * height + y) * width;
        std::fill(line + begin, line + end, 0.0f);
      }
    }
  }
}

}  // namespace sparknet
