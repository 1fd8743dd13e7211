// Images turned about their middle.
#pragma once

#include <cstdint>
#include <vector>

#include "core/message.h"
#include "core/picture.h"

namespace sparknet {

// As torchvision's RandomRotation with bilinear interpolation: a pixel of the result is looked up where it was before
// the turn; where that is outside of the image, it is `fill`.
class RandomRotation {
 public:
  // `param` is a RandomRotationParameter. Throws Error(kField).
  explicit RandomRotation(const Message& param);

  // Throws Error(kShape) where `fill` does not fit.
  void check(int64_t channels) const;

  // Degrees counterclockwise, a function of the seed and the row.
  float draw(uint64_t seed, int64_t row) const;

  // The part `region` of the image turned by `degrees`, into channels × region.height × region.width.
  void apply(const Picture<float>& image, float degrees, const Region& region, float* out) const;

 private:
  float from_, to_;
  std::vector<float> fill_;
};

}  // namespace sparknet
