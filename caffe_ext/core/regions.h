// Regions of interest, as the layers of Fast R-CNN and its descendants take them: rows (image, x1, y1, x2, y2), the
// corners in pixels of the net's input, both of them inside.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

struct Region {
  int64_t image;
  float x1, y1, x2, y2;
};

// Along one axis, the values [begin, end) of a plane that a cell of the grid covers; none where end <= begin.
struct Span {
  int64_t begin, end;
  int64_t size() const { return std::max<int64_t>(end - begin, 0); }
};

// [floor(from), ceil(to)) within the `extent` values that there are.
inline Span clipped_span(float from, float to, int64_t extent) {
  const auto clip = [extent](float value) {
    return std::min(static_cast<int64_t>(std::clamp(value, 0.0f, static_cast<float>(extent))), extent);
  };
  return {clip(std::floor(from)), clip(std::ceil(to))};
}

// Error(kShape) unless the bottoms are N × C × H × W, with places, and rows of 5.
inline void check_region_bottoms(const Blobs& bottom) {
  const Shape &maps = bottom[0]->shape(), &rows = bottom[1]->shape();
  if (maps.size() != 4 || maps[2] < 1 || maps[3] < 1) {
    throw Error(ErrorKind::kShape,
                join("`", bottom[0]->name, "` must be N × C × H × W with places to pool, not ", to_string(maps)), 0);
  }
  if (rows.empty() || count(rows, 1, static_cast<int>(rows.size())) != 5) {
    throw Error(
        ErrorKind::kShape,
        join("`", bottom[1]->name, "` must be rows of 5 numbers (image, x1, y1, x2, y2), not ", to_string(rows)), 1);
  }
}

// The rows of the second bottom. Error(kData) where one names no image of the batch, or a corner is beyond 2^24, from
// where on floats do not tell neighbouring pixels apart.
inline std::vector<Region> read_regions(const Blobs& bottom) {
  constexpr float kFarthest = 16777216.0f;
  const int64_t images = bottom[0]->shape()[0];
  const float* row = bottom[1]->data.read();
  std::vector<Region> regions;
  for (int64_t i = 0; i < bottom[1]->shape()[0]; ++i, row += 5) {
    if (!(row[0] >= 0.0f && row[0] < static_cast<float>(images))) {
      throw Error(
          ErrorKind::kData,
          join("region ", i, " is of image ", row[0], ", but there are ", images, " in `", bottom[0]->name, "`"), 1);
    }
    for (int k = 1; k < 5; ++k) {
      if (std::fabs(row[k]) <= kFarthest) continue;
      throw Error(ErrorKind::kData, join("region ", i, " has a corner at ", row[k]), 1);
    }
    regions.push_back({static_cast<int64_t>(row[0]), row[1], row[2], row[3], row[4]});
  }
  return regions;
}

// The factor from pixels to places; Error(kField) where it is none.
inline float read_spatial_scale(const Message& fields) {
  const double scale = fields.real("spatial_scale");
  if (!(scale > 0.0 && std::isfinite(scale))) {
    fail(ErrorKind::kField, "spatial_scale must be above 0 (1 / 16 where the net divides sizes by 16), not ", scale);
  }
  return static_cast<float>(scale);
}

}  // namespace sparknet
