#include "core/resized_crop.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/draws.h"
#include "core/error.h"
#include "core/wide.h"

namespace sparknet {

namespace {

constexpr int kTries = 10;

Region middle(int64_t height, int64_t width, int64_t image_height, int64_t image_width) {
  return {(image_height - height) / 2, (image_width - width) / 2, height, width};
}

// Along one axis: the first pixel that a pixel of the result is made of, and what this one and the next ones count.
struct Weights {
  Weights(int64_t from, int64_t to) : begins(to), width(to) {
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    const double reach = std::max(scale, 1.0);
    taps = 2 * static_cast<int64_t>(std::ceil(reach)) + 1;
    values.resize(taps * to);
    int64_t most = 1;
    for (int64_t i = 0; i < to; ++i) {
      const double centre = (i + 0.5) * scale;
      const int64_t begin = std::max<int64_t>(static_cast<int64_t>(std::floor(centre - reach + 0.5)), 0);
      const int64_t end = std::min<int64_t>(static_cast<int64_t>(std::floor(centre + reach + 0.5)), from);
      double sum = 0.0;
      for (int64_t j = begin; j < end; ++j) sum += weight(j, centre, reach);
      for (int64_t j = begin; j < end; ++j) {
        values[(j - begin) * to + i] = static_cast<float>(weight(j, centre, reach) / sum);
      }
      begins[i] = static_cast<int32_t>(begin);
      most = std::max(most, end - begin);
    }
    taps = most;
  }

  static double weight(int64_t pixel, double centre, double reach) {
    return std::max(0.0, 1.0 - std::abs(pixel + 0.5 - centre) / reach);
  }

  std::vector<int32_t> begins;
  std::vector<float> values;  // taps × width; 0 behind the last pixel that counts
  int64_t taps;
  int64_t width;
};

// Without `simd` the compiler asks at run time whether the arrays overlap, and may round otherwise where they lie
// close.
SPARKNET_WIDE void add_scaled(const float* from, float weight, int64_t count, float* to) {
#pragma omp simd
  for (int64_t x = 0; x < count; ++x) to[x] += weight * from[x];
}

// out[x] += weights[x] * line[begins[x] + tap]
SPARKNET_WIDE void add_gathered(const float* line, const int32_t* begins, const float* weights, int64_t count,
                                float* out) {
#pragma omp simd
  for (int64_t x = 0; x < count; ++x) out[x] += weights[x] * line[begins[x]];
}

}  // namespace

RandomResizedCrop::RandomResizedCrop(const Message& param)
    : scale_(range_of(param, "scale", "random_resized_crop", {0.08f, 1.0f})),
      ratio_(range_of(param, "ratio", "random_resized_crop", {3.0f / 4.0f, 4.0f / 3.0f})) {
  if (scale_.from <= 0 || scale_.to > 1) {
    fail(ErrorKind::kField, "the scale of random_resized_crop is a share of the area: more than 0, at most 1");
  }
  if (ratio_.from <= 0) fail(ErrorKind::kField, "the ratio of random_resized_crop must be more than 0");
}

Region RandomResizedCrop::draw(uint64_t seed, int64_t row, int64_t height, int64_t width) const {
  Draws draws(seed, Draws::kResizedCrop, row);
  const double area = static_cast<double>(height) * static_cast<double>(width);
  for (int i = 0; i < kTries; ++i) {
    const double part = area * draws.between(scale_.from, scale_.to);
    const double ratio = std::exp(draws.between(std::log(ratio_.from), std::log(ratio_.to)));
    const int64_t wide = std::llround(std::sqrt(part * ratio)), high = std::llround(std::sqrt(part / ratio));
    if (wide < 1 || high < 1 || wide > width || high > height) continue;
    const int64_t y = draws.below(height - high + 1);
    return {y, draws.below(width - wide + 1), high, wide};
  }
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  if (ratio < ratio_.from) {
    return middle(std::clamp<int64_t>(std::llround(width / ratio_.from), 1, height), width, height, width);
  }
  if (ratio > ratio_.to) {
    return middle(height, std::clamp<int64_t>(std::llround(height * ratio_.to), 1, width), height, width);
  }
  return middle(height, width, height, width);
}

void resize(const Picture<float>& image, const Region& region, int64_t height, int64_t width, float* out) {
  const Weights down(region.height, height), across(region.width, width);
  std::vector<float> line(region.width + across.taps);
  for (int64_t c = 0; c < image.channels; ++c) {
    for (int64_t y = 0; y < height; ++y, out += width) {
      std::fill(line.begin(), line.end(), 0.0f);
      for (int64_t k = 0; k < down.taps; ++k) {
        const float weight = down.values[k * height + y];
        if (weight == 0.0f) continue;
        add_scaled(image.line(c, region.y + down.begins[y] + k) + region.x, weight, region.width, line.data());
      }
      std::fill(out, out + width, 0.0f);
      for (int64_t k = 0; k < across.taps; ++k) {
        add_gathered(line.data() + k, across.begins.data(), across.values.data() + k * width, width, out);
      }
    }
  }
}

}  // namespace sparknet
