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

// Along one axis: which pixels a pixel of the result is made of, and how much each of them counts.
struct Weights {
  struct Part {
    int64_t begin;
    int64_t count;
    const float* weights;
  };

  Weights(int64_t from, int64_t to) {
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    const double reach = std::max(scale, 1.0);
    most_ = 2 * static_cast<int64_t>(std::ceil(reach)) + 1;
    begins_.resize(to);
    counts_.resize(to);
    values_.resize(to * most_);
    for (int64_t i = 0; i < to; ++i) {
      const double centre = (i + 0.5) * scale;
      const int64_t begin = std::max<int64_t>(static_cast<int64_t>(std::floor(centre - reach + 0.5)), 0);
      const int64_t end = std::min<int64_t>(static_cast<int64_t>(std::floor(centre + reach + 0.5)), from);
      double sum = 0.0;
      for (int64_t j = begin; j < end; ++j) sum += weight(j, centre, reach);
      for (int64_t j = begin; j < end; ++j) {
        values_[i * most_ + j - begin] = static_cast<float>(weight(j, centre, reach) / sum);
      }
      begins_[i] = begin;
      counts_[i] = end - begin;
    }
  }

  Part operator[](int64_t i) const { return {begins_[i], counts_[i], values_.data() + i * most_}; }

 private:
  static double weight(int64_t pixel, double centre, double reach) {
    return std::max(0.0, 1.0 - std::abs(pixel + 0.5 - centre) / reach);
  }

  int64_t most_;
  std::vector<int64_t> begins_, counts_;
  std::vector<float> values_;
};

SPARKNET_WIDE void add_scaled(const float* from, float weight, int64_t count, float* to) {
  for (int64_t x = 0; x < count; ++x) to[x] += weight * from[x];
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
  std::vector<float> line(region.width);
  for (int64_t c = 0; c < image.channels; ++c) {
    for (int64_t y = 0; y < height; ++y, out += width) {
      const Weights::Part lines = down[y];
      std::fill(line.begin(), line.end(), 0.0f);
      for (int64_t k = 0; k < lines.count; ++k) {
        const float* from = image.line(c, region.y + lines.begin + k) + region.x;
        add_scaled(from, lines.weights[k], region.width, line.data());
      }
      for (int64_t x = 0; x < width; ++x) {
        const Weights::Part pixels = across[x];
        float sum = 0.0f;
        for (int64_t k = 0; k < pixels.count; ++k) sum += pixels.weights[k] * line[pixels.begin + k];
        out[x] = sum;
      }
    }
  }
}

}  // namespace sparknet
