// An image in memory, and parts of it.
#pragma once

#include <cstdint>

namespace sparknet {

// Values of an image; the steps from one channel, line and column to the next are what its layout makes them.
template <typename Value>
struct Picture {
  const Value* values;
  int64_t channels, height, width;
  int64_t channel_step, line_step, column_step;

  const Value* line(int64_t channel, int64_t y) const { return values + channel * channel_step + y * line_step; }
};

// An image of floats, channel by channel and line by line without gaps.
inline Picture<float> planar(const float* values, int64_t channels, int64_t height, int64_t width) {
  return {values, channels, height, width, height * width, width, 1};
}

// A rectangle: where its upper left corner is, and its size.
struct Region {
  int64_t y, x, height, width;
};

}  // namespace sparknet
