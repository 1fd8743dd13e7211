// What happens to rows on their way into a data layer's top.
#pragma once

#include <cstdint>
#include <vector>

#include "core/layer.h"
#include "core/message.h"
#include "core/tensor.h"

namespace sparknet {

// Crop, mirror, mean and scale as Caffe's transform_param has them: (x - mean) * scale, the mean image cropped where
// the row is. The crop's place is random in TRAIN, in TEST it is the middle, floor((size - crop) / 2); `mirror` flips
// at random in both phases. What is random is a function of the seed and the row's number.
class Transformer {
 public:
  // `param` is the TransformationParameter; `mean` the mean image, C × H × W, or empty. Throws Error(kField).
  Transformer(const Message& param, Phase phase, std::vector<float> mean, Shape mean_shape);

  // Of one row, C × H × W, after the crop; rows that are not images keep their shape. Throws Error(kShape) where crop,
  // mean or mean_value do not fit.
  Shape output_shape(const Shape& row) const;

  // `count` rows one after the other; `out` takes count × output_shape(row). Uses the worker's threads.
  void transform(const uint8_t* rows, int64_t count, const Shape& row, uint64_t seed, float* out) const;
  void transform(const float* rows, int64_t count, const Shape& row, uint64_t seed, float* out) const;

 private:
  template <typename Pixel>
  void run(const Pixel* rows, int64_t count, const Shape& row, uint64_t seed, float* out) const;

  float scale_;
  bool mirror_;
  int64_t crop_;
  std::vector<float> mean_values_;
  std::vector<float> mean_;
  Shape mean_shape_;
  Phase phase_;
};

}  // namespace sparknet
