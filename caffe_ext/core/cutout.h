// Squares of zeros in images.
#pragma once

#include <cstdint>

#include "core/message.h"

namespace sparknet {

// DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017: `number` squares,
// whose middles lie anywhere in the image, so that a part of a square may lie outside.
class Cutout {
 public:
  // `param` is a CutoutParameter. Throws Error(kField).
  explicit Cutout(const Message& param);

  // Clears squares of `image`, channels × height × width; where they are is a function of the seed and the row.
  void apply(uint64_t seed, int64_t row, int64_t channels, int64_t height, int64_t width, float* image) const;

 private:
  int64_t size_, number_;
};

}  // namespace sparknet
