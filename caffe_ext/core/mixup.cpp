#include "core/mixup.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/draws.h"
#include "core/error.h"
#include "core/parallel.h"

namespace sparknet {

namespace {

// Of a Gamma distribution of shape `shape` (at least 1) and scale 1; Marsaglia and Tsang, "A simple method for
// generating gamma variables", 2000.
double gamma(Draws& draws, double shape) {
  const double d = shape - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const uint32_t a = draws.word(), b = draws.word();
    const double x = normal(a, b)[0];
    const double u = (draws.word() + 0.5) / 4294967296.0;
    const double v = std::pow(1.0 + c * x, 3);
    if (v > 0 && std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

// From Beta(alpha + 1, alpha).
double beta(Draws& draws, double alpha) {
  const double x = gamma(draws, alpha + 1.0);
  // Gamma(alpha) is Gamma(alpha + 1) times a power of a uniform number.
  const double u = (draws.word() + 0.5) / 4294967296.0;
  const double y = gamma(draws, alpha + 1.0) * std::pow(u, 1.0 / alpha);
  return x / (x + y);
}

}  // namespace

Mixup::Mixup(const Message& param) : alpha_(param.real("alpha")) {
  if (!(alpha_ > 0.0) || !std::isfinite(alpha_)) fail(ErrorKind::kField, "mixup wants an alpha of more than 0");
}

void Mixup::apply(uint64_t seed, int64_t rows, int64_t size, float* batch) const {
  // A permutation drawn from all: i has the partner j as often as j has i.
  std::vector<int64_t> partner(rows);
  std::iota(partner.begin(), partner.end(), int64_t{0});
  Draws order(seed, Draws::kPartners, 0);
  for (int64_t i = rows - 1; i > 0; --i) std::swap(partner[i], partner[order.below(i + 1)]);
  std::vector<float> weights(rows);
  for (int64_t i = 0; i < rows; ++i) {
    Draws draws(seed, Draws::kMixup, i);
    weights[i] = static_cast<float>(beta(draws, alpha_));
  }
  // Some columns at a time, so that what they were fits into the cache.
  constexpr int64_t kColumns = 256;
  parallel_for((size + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> before(rows * kColumns);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kColumns, count = std::min(kColumns, size - first);
      for (int64_t i = 0; i < rows; ++i) {
        std::copy_n(batch + i * size + first, count, before.data() + i * kColumns);
      }
      for (int64_t i = 0; i < rows; ++i) {
        float* row = batch + i * size + first;
        const float* other = before.data() + partner[i] * kColumns;
        const float weight = weights[i];
        for (int64_t x = 0; x < count; ++x) row[x] = weight * row[x] + (1.0f - weight) * other[x];
      }
    }
  });
}

}  // namespace sparknet
