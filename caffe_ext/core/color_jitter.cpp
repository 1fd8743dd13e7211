#include "core/color_jitter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/draws.h"
#include "core/error.h"
#include "core/wide.h"

namespace sparknet {

namespace {

constexpr float kWhite = 255.0f;
// What blue, green and red weigh in the luminance (ITU-R BT.601).
constexpr float kBlue = 0.114f, kGreen = 0.587f, kRed = 0.299f;

inline float cut(float value) { return std::min(std::max(value, 0.0f), kWhite); }

inline float luminance(const float* image, int64_t channels, int64_t size, int64_t i) {
  return channels == 1 ? image[i] : kBlue * image[i] + kGreen * image[size + i] + kRed * image[2 * size + i];
}

// value * factor + (1 - factor) * other, which is one number for the whole image.
SPARKNET_WIDE void blend(float* values, int64_t count, float factor, float other) {
  const float rest = (1.0f - factor) * other;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) values[i] = cut(values[i] * factor + rest);
}

double mean_luminance(const float* image, int64_t channels, int64_t size) {
  double sum = 0.0;
  for (int64_t i = 0; i < size; ++i) sum += luminance(image, channels, size, i);
  return sum / static_cast<double>(size);
}

SPARKNET_WIDE void saturate(float* image, int64_t size, float factor) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) {
    const float rest = (1.0f - factor) * (kBlue * image[i] + kGreen * image[size + i] + kRed * image[2 * size + i]);
    image[i] = cut(image[i] * factor + rest);
    image[size + i] = cut(image[size + i] * factor + rest);
    image[2 * size + i] = cut(image[2 * size + i] * factor + rest);
  }
}

// How far a channel is below the largest one, of hue `sixths` (a number of sixths of a turn) and as a share of the
// difference of the largest and the smallest; `offset` is 5 for red, 3 for green, 1 for blue.
inline float below_largest(float sixths, float offset) {
  float k = sixths + offset;
  k -= 6.0f * std::floor(k * (1.0f / 6.0f));
  return std::max(0.0f, std::min(std::min(k, 4.0f - k), 1.0f));
}

// Turns the hue (of the hexagon, as in HSV) by `turn` of a full turn.
SPARKNET_WIDE void turn_hue(float* image, int64_t size, float turn) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) {
    const float blue = image[i], green = image[size + i], red = image[2 * size + i];
    const float largest = std::max(std::max(blue, green), red);
    const float spread = largest - std::min(std::min(blue, green), red);
    const float scale = spread > 0.0f ? 1.0f / spread : 0.0f;
    const float sixths = largest == red     ? (green - blue) * scale
                         : largest == green ? (blue - red) * scale + 2.0f
                                            : (red - green) * scale + 4.0f;
    const float turned = sixths + 6.0f * turn;
    image[i] = largest - spread * below_largest(turned, 1.0f);
    image[size + i] = largest - spread * below_largest(turned, 3.0f);
    image[2 * size + i] = largest - spread * below_largest(turned, 5.0f);
  }
}

float amount(const Message& param, const char* name, double most) {
  const double value = param.real(name);
  if (!(value >= 0.0 && value <= most)) {
    fail(ErrorKind::kField, "the ", name, " of color_jitter must be at least 0",
         std::isfinite(most) ? join(" and at most ", most) : "");
  }
  return static_cast<float>(value);
}

}  // namespace

ColorJitter::ColorJitter(const Message& param)
    : brightness_(amount(param, "brightness", 1e6)),
      contrast_(amount(param, "contrast", 1e6)),
      saturation_(amount(param, "saturation", 1e6)),
      hue_(amount(param, "hue", 0.5)) {}

void ColorJitter::check(int64_t channels) const {
  if (channels != 1 && channels != 3) {
    fail(ErrorKind::kShape, "color_jitter is for images of 3 channels or 1, not ", channels);
  }
}

void ColorJitter::apply(uint64_t seed, int64_t row, int64_t channels, int64_t size, float* image) const {
  Draws draws(seed, Draws::kColorJitter, row);
  const auto factor = [&](float x) { return draws.between(std::max(0.0f, 1.0f - x), 1.0f + x); };
  const float brightness = factor(brightness_), contrast = factor(contrast_), saturation = factor(saturation_);
  const float hue = draws.between(-hue_, hue_);
  std::array<int, 4> order = {0, 1, 2, 3};
  for (int64_t i = 3; i > 0; --i) std::swap(order[i], order[draws.below(i + 1)]);
  const bool color = channels == 3;
  for (const int change : order) {
    if (change == 0 && brightness_ > 0) blend(image, channels * size, brightness, 0.0f);
    if (change == 1 && contrast_ > 0) {
      blend(image, channels * size, contrast, static_cast<float>(mean_luminance(image, channels, size)));
    }
    if (change == 2 && saturation_ > 0 && color) saturate(image, size, saturation);
    if (change == 3 && hue_ > 0 && color) turn_hue(image, size, hue);
  }
}

}  // namespace sparknet
