// What happens to rows on their way into a data layer's top.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/color_jitter.h"
#include "core/cutout.h"
#include "core/layer.h"
#include "core/message.h"
#include "core/mixup.h"
#include "core/picture.h"
#include "core/resized_crop.h"
#include "core/rotation.h"
#include "core/tensor.h"

namespace sparknet {

// What transform_param has beyond Caffe. Everything is drawn at random while training, and nothing happens in TEST.
struct Augmentation {
  // `param` is the TransformationParameter. Throws Error(kField) for values that make no sense, in either phase.
  Augmentation(const Message& param, Phase phase);

  // The fields of TransformationParameter that it heeds.
  static const std::vector<std::string>& fields();

  std::optional<RandomRotation> rotation;
  std::optional<RandomResizedCrop> resized_crop;
  std::optional<ColorJitter> color_jitter;
  std::optional<Cutout> cutout;
  std::optional<Mixup> mixup;

  // Whether pixels get other values than those of the row.
  bool changes_pixels() const { return rotation || resized_crop || color_jitter; }
};

// Crop, mirror, mean and scale as Caffe's transform_param has them: (x - mean) * scale, the mean image cropped where
// the row is. The crop's place is random in TRAIN, in TEST it is the middle, floor((size - crop) / 2); `mirror` flips
// at random in both phases. With an Augmentation: rotation, crop, colours, mean and scale, mirror, cutout, in this
// order; mixup once a batch is whole. What is random is a function of the seed and the row's number.
class Transformer {
 public:
  // `param` is the TransformationParameter; `mean` the mean image, C × H × W, or empty. Throws Error(kField).
  Transformer(const Message& param, Phase phase, std::vector<float> mean, Shape mean_shape);

  // Of one row, C × H × W, after the crop; rows that are not images keep their shape. Throws Error(kShape) where crop,
  // mean, mean_value or an augmentation do not fit.
  Shape output_shape(const Shape& row) const;

  // Whether this takes much longer than copying the rows.
  bool augments() const { return augmentation_.changes_pixels() || augmentation_.mixup; }

  // `count` rows; `strides` are the steps between rows, channels, lines and columns, counted in values (rows that are
  // not images lie without gaps). `out` takes count × output_shape(row). The first of them has the number `first`.
  // Uses the worker's threads.
  template <typename Value>
  void transform(const Value* rows, int64_t count, const Shape& row, const Shape& strides, uint64_t seed, int64_t first,
                 float* out) const;

  // What has to wait until all rows of a batch are there: mixup.
  void finish(uint64_t seed, int64_t rows, int64_t size, float* batch) const;

 private:
  template <typename Value>
  void transform_image(const Picture<Value>& image, uint64_t seed, int64_t row, float* out) const;
  // (x - mean) * scale of the region of the image.
  template <typename Value>
  void normalise(const Picture<Value>& image, const Region& region, const Region& mean_region, float* out) const;

  float scale_;
  bool mirror_;
  int64_t crop_;
  std::vector<float> mean_values_;
  std::vector<float> mean_;
  Shape mean_shape_;
  Phase phase_;
  Augmentation augmentation_;
};

}  // namespace sparknet
