#include "core/transform.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/parallel.h"
#include "core/random.h"

namespace sparknet {

namespace {

bool is_image(const Shape& row) { return row.size() == 3; }

// The shape without the leading 1 that mean files written by Caffe's tools have.
Shape image_shape(Shape shape) {
  while (shape.size() > 3 && shape.front() == 1) shape.erase(shape.begin());
  return shape;
}

// A number in [0, count) from a random word.
int64_t choose(uint32_t word, int64_t count) {
  return static_cast<int64_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(count)) >> 32);
}

}  // namespace

Transformer::Transformer(const Message& param, Phase phase, std::vector<float> mean, Shape mean_shape)
    : scale_(static_cast<float>(param.real("scale"))),
      mirror_(param.flag("mirror")),
      crop_(param.integer("crop_size")),
      mean_(std::move(mean)),
      mean_shape_(image_shape(std::move(mean_shape))),
      phase_(phase) {
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
  if (!is_image(row)) return row;
  if (!mean_.empty() && row != mean_shape_) {
    fail(ErrorKind::kShape, "the mean image is ", to_string(mean_shape_), ", but the rows are ", to_string(row));
  }
  if (mean_values_.size() > 1 && static_cast<int64_t>(mean_values_.size()) != row[0]) {
    fail(ErrorKind::kShape, "transform_param has ", mean_values_.size(), " mean_value, but the rows (", to_string(row),
         ") have ", row[0], " channels; give 1 or ", row[0]);
  }
  if (crop_ == 0) return row;
  if (row[1] < crop_ || row[2] < crop_) {
    fail(ErrorKind::kShape, "crop_size ", crop_, " is larger than the rows (", to_string(row), ")");
  }
  return {row[0], crop_, crop_};
}

void Transformer::transform(const uint8_t* rows, int64_t count, const Shape& row, uint64_t seed, float* out) const {
  run(rows, count, row, seed, out);
}

void Transformer::transform(const float* rows, int64_t count, const Shape& row, uint64_t seed, float* out) const {
  run(rows, count, row, seed, out);
}

template <typename Pixel>
void Transformer::run(const Pixel* rows, int64_t count, const Shape& row, uint64_t seed, float* out) const {
  const Shape cropped = output_shape(row);
  const int64_t size = sparknet::count(row), out_size = sparknet::count(cropped);
  const int64_t grain = std::max<int64_t>(1, kElementGrain / std::max<int64_t>(out_size, 1));
  if (!is_image(row)) {
    parallel_for(count * size, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = static_cast<float>(rows[i]);
    });
    return;
  }
  const int64_t channels = row[0], height = row[1], width = row[2];
  const int64_t out_height = cropped[1], out_width = cropped[2];
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const auto random = philox(seed, static_cast<uint64_t>(n));
      int64_t y0 = (height - out_height) / 2, x0 = (width - out_width) / 2;
      if (phase_ == Phase::kTrain) {
        y0 = choose(random[0], height - out_height + 1);
        x0 = choose(random[1], width - out_width + 1);
      }
      // Caffe mirrors at random in both phases where `mirror` is set.
      const bool mirrored = mirror_ && choose(random[2], 2) == 1;
      float* to = out + n * out_size;
      for (int64_t c = 0; c < channels; ++c) {
        const float constant = mean_values_.empty() ? 0.0f : mean_values_[mean_values_.size() == 1 ? 0 : c];
        for (int64_t y = 0; y < out_height; ++y, to += out_width) {
          const int64_t place = (c * height + y0 + y) * width + x0;
          const Pixel* from = rows + n * size + place;
          if (mean_.empty()) {
            for (int64_t x = 0; x < out_width; ++x) to[x] = (static_cast<float>(from[x]) - constant) * scale_;
          } else {
            const float* mean = mean_.data() + place;
            for (int64_t x = 0; x < out_width; ++x) to[x] = (static_cast<float>(from[x]) - mean[x]) * scale_;
          }
          if (mirrored) std::reverse(to, to + out_width);
        }
      }
    }
  });
}

}  // namespace sparknet
