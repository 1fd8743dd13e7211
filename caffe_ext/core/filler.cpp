#include "core/filler.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "core/parallel.h"
#include "core/random.h"

namespace sparknet {

namespace {

// Elements made from one call of philox; element i is a function of the seed and i alone.
constexpr int64_t kBlock = 4;

// Calls make(words, values, n) for blocks of four random words and the n <= 4 values that they are for.
template <typename Make>
void fill_blocks(float* values, int64_t count, uint64_t key, const Make& make) {
  parallel_for((count + kBlock - 1) / kBlock, kElementGrain / kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock;
      make(philox(key, static_cast<uint64_t>(block)), values + first, std::min(kBlock, count - first));
    }
  });
}

void fill_constant(float* values, int64_t count, float value) {
  parallel_for(count, kElementGrain,
               [&](int64_t begin, int64_t end) { std::fill(values + begin, values + end, value); });
}

void fill_uniform(float* values, int64_t count, float low, float high, uint64_t seed) {
  fill_blocks(values, count, seed, [low, high](const std::array<uint32_t, 4>& words, float* to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = std::min(low + (high - low) * uniform(words[i]), high);
  });
}

void fill_gaussian(float* values, int64_t count, double mean, double std, uint64_t seed) {
  fill_blocks(values, count, seed, [mean, std](const std::array<uint32_t, 4>& words, float* to, int64_t n) {
    const auto a = normal(words[0], words[1]);
    const auto b = normal(words[2], words[3]);
    const double all[kBlock] = {a[0], a[1], b[0], b[1]};
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(mean + std * all[i]);
  });
}

// Keeps each value with a probability and zeroes the others.
void thin(float* values, int64_t count, double keep, uint64_t seed) {
  // Another key than the values': which ones stay must not depend on what they are.
  fill_blocks(values, count, mix(seed, 1), [keep](const std::array<uint32_t, 4>& words, float* to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      if (words[i] >= keep * 4294967296.0) to[i] = 0.0f;
    }
  });
}

// Positive numbers of which those of each slice along axis 0 sum to 1.
void fill_positive_unitball(float* values, int64_t count, int64_t slices, uint64_t seed) {
  fill_blocks(values, count, seed, [](const std::array<uint32_t, 4>& words, float* to, int64_t n) {
    // (0, 1] in place of [0, 1): the sum is never 0.
    for (int64_t i = 0; i < n; ++i) to[i] = 1.0f - uniform(words[i]);
  });
  const int64_t size = count / slices;
  parallel_for(slices, std::max<int64_t>(1, kElementGrain / size), [&](int64_t begin, int64_t end) {
    for (int64_t slice = begin; slice < end; ++slice) {
      float* row = values + slice * size;
      double sum = 0.0;
      for (int64_t i = 0; i < size; ++i) sum += row[i];
      for (int64_t i = 0; i < size; ++i) row[i] = static_cast<float>(row[i] / sum);
    }
  });
}

// Weights of bilinear interpolation for a Deconvolution that enlarges by (kernel_size + 1) / 2, the same in every pair
// of channels.
void fill_bilinear(float* values, const Shape& shape) {
  const int64_t size = shape[3];
  const auto factor = static_cast<float>((size + 1) / 2);
  const float center = static_cast<float>(size - 1) / (2.0f * factor);
  parallel_for(count(shape, 0, 3), std::max<int64_t>(1, kElementGrain / size), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float y = 1.0f - std::fabs(static_cast<float>(row % size) / factor - center);
      for (int64_t x = 0; x < size; ++x) {
        values[row * size + x] = (1.0f - std::fabs(static_cast<float>(x) / factor - center)) * y;
      }
    }
  });
}

// What xavier and msra divide the variance by.
double fan(const Shape& shape, const Message& filler) {
  const auto all = static_cast<double>(count(shape));
  const double fan_in = all / static_cast<double>(shape[0]);
  const double fan_out = shape.size() > 1 ? all / static_cast<double>(shape[1]) : all;
  const std::string& norm = filler.text("variance_norm");
  if (norm == "AVERAGE") return (fan_in + fan_out) / 2.0;
  return norm == "FAN_OUT" ? fan_out : fan_in;
}

}  // namespace

void check_filler(const Message& filler, const Shape& shape) {
  const std::string& type = filler.text("type");
  const int64_t sparse = filler.integer("sparse");
  if (sparse != -1 && type != "gaussian") {
    fail(ErrorKind::kField, "filler \"", type, "\" does not know `sparse`; only \"gaussian\" does");
  }
  if (type == "uniform") {
    const double low = filler.real("min"), high = filler.real("max");
    if (!(low <= high)) fail(ErrorKind::kField, "filler \"uniform\": min ", low, " is greater than max ", high);
  } else if (type == "gaussian") {
    const double std = filler.real("std");
    if (!(std > 0.0)) {
      fail(ErrorKind::kField, "filler \"gaussian\": std must be greater than 0, not ", std,
           "; \"constant\" gives equal values");
    }
    if (sparse < -1 || (sparse >= 0 && (shape.empty() || sparse > shape[0]))) {
      fail(ErrorKind::kField, "filler \"gaussian\": sparse ", sparse,
           " does not lie between 0 and the first extent of the parameter's shape (", to_string(shape), ")");
    }
  } else if (type == "xavier" || type == "msra") {
    if (shape.empty()) fail(ErrorKind::kField, "filler \"", type, "\" cannot fill a scalar");
  } else if (type == "bilinear") {
    if (shape.size() != 4 || shape[2] != shape[3]) {
      fail(ErrorKind::kField, "filler \"bilinear\" is for square kernels of 4 axes, not for ", to_string(shape));
    }
  } else if (type != "constant" && type != "positive_unitball") {
    fail(ErrorKind::kField, "unknown filler type \"", type,
         "\"; there are constant, uniform, gaussian, positive_unitball, xavier, msra, bilinear");
  }
}

void fill(Tensor& tensor, const Message& filler, uint64_t seed) {
  const Shape& shape = tensor.shape();
  check_filler(filler, shape);
  const int64_t count = tensor.count();
  if (count == 0) return;
  const std::string& type = filler.text("type");
  float* values = tensor.overwrite();
  if (type == "constant") {
    fill_constant(values, count, static_cast<float>(filler.real("value")));
  } else if (type == "uniform") {
    fill_uniform(values, count, static_cast<float>(filler.real("min")), static_cast<float>(filler.real("max")), seed);
  } else if (type == "gaussian") {
    fill_gaussian(values, count, filler.real("mean"), filler.real("std"), seed);
    const int64_t sparse = filler.integer("sparse");
    if (sparse >= 0) thin(values, count, static_cast<double>(sparse) / static_cast<double>(shape[0]), seed);
  } else if (type == "positive_unitball") {
    fill_positive_unitball(values, count, shape.empty() ? 1 : shape[0], seed);
  } else if (type == "xavier") {
    const auto limit = static_cast<float>(std::sqrt(3.0 / fan(shape, filler)));
    fill_uniform(values, count, -limit, limit, seed);
  } else if (type == "msra") {
    fill_gaussian(values, count, 0.0, std::sqrt(2.0 / fan(shape, filler)), seed);
  } else {
    fill_bilinear(values, shape);
  }
}

}  // namespace sparknet
