#include "core/rotation.h"

#include <algorithm>
#include <cmath>

#include "core/draws.h"
#include "core/error.h"
#include "core/range.h"

namespace sparknet {

RandomRotation::RandomRotation(const Message& param) {
  const std::vector<double>& degrees = param.reals("degrees");
  if (degrees.size() == 1 && degrees[0] >= 0 && std::isfinite(degrees[0])) {
    to_ = static_cast<float>(degrees[0]);
    from_ = -to_;
  } else if (degrees.size() == 2) {
    const Range range = range_of(param, "degrees", "random_rotation", {});
    from_ = range.from;
    to_ = range.to;
  } else {
    fail(ErrorKind::kField, "random_rotation wants degrees: one number of at least 0, or two, from and to");
  }
  if (param.has("fill")) {
    for (const double value : param.reals("fill")) fill_.push_back(static_cast<float>(value));
  } else {
    fill_.push_back(0.0f);
  }
}

void RandomRotation::check(int64_t channels) const {
  if (fill_.size() != 1 && static_cast<int64_t>(fill_.size()) != channels) {
    fail(ErrorKind::kShape, "random_rotation has ", fill_.size(), " fill, but the images have ", channels,
         " channels; give 1 or ", channels);
  }
}

float RandomRotation::draw(uint64_t seed, int64_t row) const {
  return Draws(seed, Draws::kRotation, row).between(from_, to_);
}

void RandomRotation::apply(const Picture<float>& image, float degrees, const Region& region, float* out) const {
  constexpr double kDegree = 3.14159265358979323846 / 180.0;
  const double cosine = std::cos(degrees * kDegree), sine = std::sin(degrees * kDegree);
  const double middle_y = 0.5 * image.height, middle_x = 0.5 * image.width;
  const int64_t last_y = image.height - 1, last_x = image.width - 1;
  for (int64_t i = 0; i < region.height; ++i) {
    const double dy = region.y + i + 0.5 - middle_y;
    for (int64_t j = 0; j < region.width; ++j) {
      const double dx = region.x + j + 0.5 - middle_x;
      // Pixels are squares, whose middles are at halves.
      const double y = middle_y + sine * dx + cosine * dy, x = middle_x + cosine * dx - sine * dy;
      float* to = out + i * region.width + j;
      if (!(y >= 0 && y < image.height && x >= 0 && x < image.width)) {
        for (int64_t c = 0; c < image.channels; ++c, to += region.height * region.width) {
          *to = fill_[fill_.size() == 1 ? 0 : c];
        }
        continue;
      }
      const double floor_y = std::floor(y - 0.5), floor_x = std::floor(x - 0.5);
      const float down = static_cast<float>(y - 0.5 - floor_y), right = static_cast<float>(x - 0.5 - floor_x);
      const int64_t y0 = std::max<int64_t>(static_cast<int64_t>(floor_y), 0);
      const int64_t x0 = std::max<int64_t>(static_cast<int64_t>(floor_x), 0);
      const int64_t y1 = std::min(static_cast<int64_t>(floor_y) + 1, last_y);
      const int64_t x1 = std::min(static_cast<int64_t>(floor_x) + 1, last_x);
      for (int64_t c = 0; c < image.channels; ++c, to += region.height * region.width) {
        const float *above = image.line(c, y0), *below = image.line(c, y1);
        const float upper = above[x0] + right * (above[x1] - above[x0]);
        const float lower = below[x0] + right * (below[x1] - below[x0]);
        *to = upper + down * (lower - upper);
      }
    }
  }
}

}  // namespace sparknet
