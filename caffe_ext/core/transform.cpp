#include "core/transform.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "core/draws.h"
#include "core/error.h"
#include "core/parallel.h"
#include "core/wide.h"

namespace sparknet {

namespace {

bool is_image(const Shape& row) { return row.size() == 3; }

// The shape without the leading 1 that mean files written by Caffe's tools have.
Shape image_shape(Shape shape) {
  while (shape.size() > 3 && shape.front() == 1) shape.erase(shape.begin());
  return shape;
}

// One channel of a line whose channels are 3 and lie next to each other.
SPARKNET_WIDE void load_third(const uint8_t* from, int64_t count, float* out) {
  for (int64_t x = 0; x < count; ++x) out[x] = static_cast<float>(from[3 * x]);
}

// Values that are `step` apart, as floats.
template <typename Value>
void load(const Value* from, int64_t step, int64_t count, float* out) {
  if constexpr (std::is_same_v<Value, uint8_t>) {
    if (step == 3) return load_third(from, count, out);
  }
  if (step == 1) {
    for (int64_t x = 0; x < count; ++x) out[x] = static_cast<float>(from[x]);
  } else {
    for (int64_t x = 0; x < count; ++x) out[x] = static_cast<float>(from[step * x]);
  }
}

// The values of `region` without gaps, as floats.
template <typename Value>
void copy(const Picture<Value>& image, const Region& region, float* out) {
  for (int64_t c = 0; c < image.channels; ++c) {
    for (int64_t y = 0; y < region.height; ++y, out += region.width) {
      load(image.line(c, region.y + y) + region.x * image.column_step, image.column_step, region.width, out);
    }
  }
}

// (x - mean) * scale, the mean being one number or one for each value.
template <typename Value>
void scale_line(const Value* from, const float* mean, float constant, float scale, int64_t count, float* out) {
  if (mean == nullptr) {
    for (int64_t x = 0; x < count; ++x) out[x] = (static_cast<float>(from[x]) - constant) * scale;
  } else {
    for (int64_t x = 0; x < count; ++x) out[x] = (static_cast<float>(from[x]) - mean[x]) * scale;
  }
}

}  // namespace

const std::vector<std::string>& Augmentation::fields() {
  static const std::vector<std::string> names = {"random_rotation", "random_resized_crop", "color_jitter", "cutout",
                                                 "mixup"};
  return names;
}

Augmentation::Augmentation(const Message& param, Phase phase) {
  if (param.has("random_rotation")) rotation.emplace(param.message("random_rotation"));
  if (param.has("random_resized_crop")) {
    resized_crop.emplace(param.message("random_resized_crop"));
    if (param.integer("crop_size") == 0) {
      fail(ErrorKind::kField, "random_resized_crop wants a crop_size, the size of what comes out");
    }
    if (param.has("mean_file")) {
      fail(ErrorKind::kField, "random_resized_crop scales images, a mean image does not fit them; give mean_value");
    }
  }
  if (param.has("color_jitter")) color_jitter.emplace(param.message("color_jitter"));
  if (param.has("cutout")) cutout.emplace(param.message("cutout"));
  if (param.has("mixup")) mixup.emplace(param.message("mixup"));
  if (phase == Phase::kTest) {
    rotation.reset();
    resized_crop.reset();
    color_jitter.reset();
    cutout.reset();
    mixup.reset();
  }
}

Transformer::Transformer(const Message& param, Phase phase, std::vector<float> mean, Shape mean_shape)
    : scale_(static_cast<float>(param.real("scale"))),
      mirror_(param.flag("mirror")),
      crop_(param.integer("crop_size")),
      mean_(std::move(mean)),
      mean_shape_(image_shape(std::move(mean_shape))),
      phase_(phase),
      augmentation_(param, phase) {
  if (param.has("mean_value")) {
    for (const double value : param.reals("mean_value")) mean_values_.push_back(static_cast<float>(value));
  }
  const bool has_mean = !mean_.empty();
  if (!mean_values_.empty() && (has_mean || param.has("mean_file"))) {
    fail(ErrorKind::kField, "transform_param has both mean_value and a mean image; give one of them");
  }
  if (param.has("mean_file") && !has_mean) {
    fail(ErrorKind::kField, "transform_param names mean_file \"", param.text("mean_file"),
         "\", but no mean image was supplied");
  }
  if (has_mean && (!is_image(mean_shape_) || sparknet::count(mean_shape_) != static_cast<int64_t>(mean_.size()))) {
    fail(ErrorKind::kField, "the mean image must have the axes channels × height × width, not ",
         to_string(mean_shape_));
  }
}

Shape Transformer::output_shape(const Shape& row) const {
  const Augmentation& changes = augmentation_;
  if (!is_image(row)) {
    if (changes.changes_pixels() || changes.cutout) {
      fail(ErrorKind::kShape, "transform_param has ",
           changes.rotation       ? "random_rotation"
           : changes.resized_crop ? "random_resized_crop"
           : changes.color_jitter ? "color_jitter"
                                  : "cutout",
           ", which is for images (channels × height × width), but the rows are ", to_string(row));
    }
    return row;
  }
  if (!mean_.empty() && row != mean_shape_) {
    fail(ErrorKind::kShape, "the mean image is ", to_string(mean_shape_), ", but the rows are ", to_string(row));
  }
  if (mean_values_.size() > 1 && static_cast<int64_t>(mean_values_.size()) != row[0]) {
    fail(ErrorKind::kShape, "transform_param has ", mean_values_.size(), " mean_value, but the rows (", to_string(row),
         ") have ", row[0], " channels; give 1 or ", row[0]);
  }
  if (changes.rotation) changes.rotation->check(row[0]);
  if (changes.color_jitter) changes.color_jitter->check(row[0]);
  if (crop_ == 0) return row;
  if ((row[1] < crop_ || row[2] < crop_) && !changes.resized_crop) {
    fail(ErrorKind::kShape, "crop_size ", crop_, " is larger than the rows (", to_string(row), ")");
  }
  return {row[0], crop_, crop_};
}

template <typename Value>
void Transformer::transform(const Value* rows, int64_t count, const Shape& row, const Shape& strides, uint64_t seed,
                            int64_t first, float* out) const {
  const int64_t size = sparknet::count(row), out_size = sparknet::count(output_shape(row));
  if (!is_image(row)) {
    parallel_for(count * size, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = static_cast<float>(rows[i]);
    });
    return;
  }
  if (size == 0) return;
  const int64_t grain =
      augmentation_.changes_pixels() ? 1 : std::max<int64_t>(1, kElementGrain / std::max<int64_t>(out_size, 1));
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Picture<Value> image{rows + n * strides[0], row[0], row[1], row[2], strides[1], strides[2], strides[3]};
      transform_image(image, seed, first + n, out + n * out_size);
    }
  });
}

template <typename Value>
void Transformer::transform_image(const Picture<Value>& image, uint64_t seed, int64_t row, float* out) const {
  const Augmentation& changes = augmentation_;
  const int64_t height = crop_ ? crop_ : image.height, width = crop_ ? crop_ : image.width;
  const auto random = philox(seed, static_cast<uint64_t>(row));
  Region region{(image.height - height) / 2, (image.width - width) / 2, height, width};
  if (changes.resized_crop) {
    region = changes.resized_crop->draw(seed, row, image.height, image.width);
  } else if (phase_ == Phase::kTrain) {
    region.y = choose(random[0], image.height - height + 1);
    region.x = choose(random[1], image.width - width + 1);
  }
  if (!changes.changes_pixels()) {
    normalise(image, region, region, out);
  } else {
    // What is turned needs pixels around the region, too.
    const Region read = changes.rotation ? Region{0, 0, image.height, image.width} : region;
    std::vector<float> pixels(image.channels * read.height * read.width);
    std::vector<float> turned;
    copy(image, read, pixels.data());
    Picture<float> source = planar(pixels.data(), image.channels, read.height, read.width);
    Region part{0, 0, region.height, region.width};
    if (changes.rotation) {
      turned.resize(image.channels * region.height * region.width);
      changes.rotation->apply(source, changes.rotation->draw(seed, row), region, turned.data());
      source = planar(turned.data(), image.channels, region.height, region.width);
    }
    if (changes.resized_crop) {
      resize(source, part, height, width, out);
    } else {
      copy(source, part, out);
    }
    if (changes.color_jitter) changes.color_jitter->apply(seed, row, image.channels, height * width, out);
    normalise(planar(out, image.channels, height, width), {0, 0, height, width}, region, out);
  }
  // Caffe mirrors at random in both phases where `mirror` is set.
  if (mirror_ && choose(random[2], 2) == 1) {
    for (int64_t line = 0; line < image.channels * height; ++line) {
      std::reverse(out + line * width, out + (line + 1) * width);
    }
  }
  if (changes.cutout) changes.cutout->apply(seed, row, image.channels, height, width, out);
}

template <typename Value>
void Transformer::normalise(const Picture<Value>& image, const Region& region, const Region& mean_region,
                            float* out) const {
  for (int64_t c = 0; c < image.channels; ++c) {
    const float constant = mean_values_.empty() ? 0.0f : mean_values_[mean_values_.size() == 1 ? 0 : c];
    for (int64_t y = 0; y < region.height; ++y, out += region.width) {
      const Value* from = image.line(c, region.y + y) + region.x * image.column_step;
      const float* mean = nullptr;
      if (!mean_.empty()) {
        mean = mean_.data() + (c * mean_shape_[1] + mean_region.y + y) * mean_shape_[2] + mean_region.x;
      }
      if (image.column_step == 1) {
        scale_line(from, mean, constant, scale_, region.width, out);
      } else {
        load(from, image.column_step, region.width, out);
        scale_line(out, mean, constant, scale_, region.width, out);
      }
    }
  }
}

void Transformer::finish(uint64_t seed, int64_t rows, int64_t size, float* batch) const {
  if (augmentation_.mixup) augmentation_.mixup->apply(seed, rows, size, batch);
}

template void Transformer::transform(const uint8_t*, int64_t, const Shape&, const Shape&, uint64_t, int64_t,
                                     float*) const;
template void Transformer::transform(const float*, int64_t, const Shape&, const Shape&, uint64_t, int64_t,
                                     float*) const;

}  // namespace sparknet
