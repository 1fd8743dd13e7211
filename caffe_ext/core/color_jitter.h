// Changes of an image's colours.
#pragma once

#include <cstdint>

#include "core/message.h"

namespace sparknet {

// As torchvision's ColorJitter: brightness, contrast, saturation and hue, each by an amount drawn at random, in an
// order drawn at random. Values are from 0 to 255, and are cut off there; channels are blue, green, red, or one.
class ColorJitter {
 public:
  // `param` is a ColorJitterParameter. Throws Error(kField).
  explicit ColorJitter(const Message& param);

  // Throws Error(kShape).
  void check(int64_t channels) const;

  // Changes `image`, whose channels have `size` pixels each; what is drawn is a function of the seed and the row. One
  // channel has neither saturation nor hue.
  void apply(uint64_t seed, int64_t row, int64_t channels, int64_t size, float* image) const;

 private:
  float brightness_, contrast_, saturation_, hue_;
};

}  // namespace sparknet
