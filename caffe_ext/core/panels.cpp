#include "core/panels.h"

#include <algorithm>

#include "core/machine.h"

namespace sparknet {

namespace {

using In = Panels<const float>;
using Out = Panels<float>;

// `rows` at most kRows.
template <int kWidth, int kRows, int kPanels>
SPARKNET_INLINE void multiply_few(int64_t rows, const float* a, const In& of_a, const In& b, int64_t panel,
                                  const float* bias, float* c, const Out& of_c) {
  if (rows == kRows) {
    multiply_rows<kWidth, kRows, kPanels>(a, kLanes, of_a.stride, of_a.count, b.values + panel * b.stride, b.stride,
                                          bias == nullptr ? nullptr : bias + panel * kLanes, c + panel * of_c.stride,
                                          kLanes, of_c.stride);
  } else if constexpr (kRows > 1) {
    multiply_few<kWidth, kRows - 1, kPanels>(rows, a, of_a, b, panel, bias, c, of_c);
  }
}

template <int kWidth, int kRows, int kPanels>
SPARKNET_INLINE void multiply(int64_t rows, const In& a, const In& b, const float* bias, const Out& c) {
  const int64_t pieces = (rows + kRows - 1) / kRows;
  for (int64_t panel = 0; panel < b.count; panel += kPanels) {
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t first = rows * piece / pieces, count = rows * (piece + 1) / pieces - first;
      const float* from = a.values + first * kLanes;
      float* to = c.values + first * kLanes;
      if (panel + kPanels <= b.count) {
        multiply_few<kWidth, kRows, kPanels>(count, from, a, b, panel, bias, to, c);
      } else {
        multiply_few<kWidth, kRows, 1>(count, from, a, b, panel, bias, to, c);
      }
    }
  }
}

template <int kWidth, int kRows, int kPanels>
SPARKNET_INLINE void multiply_transposed(int64_t rows, const In& a, const In& b, const Out& c, bool add) {
  for (int64_t panel = 0; panel < b.count; panel += kPanels) {
    const float* right = b.values + panel * b.stride;
    float* sums = c.values + panel * c.stride;
    for (int64_t column = 0; column < a.count * kLanes; column += kRows) {
      const float* left = a.values + column / kLanes * a.stride + column % kLanes;
      float* to = sums + column * kLanes;
      if (panel + kPanels <= b.count) {
        multiply_columns<kWidth, kRows, kPanels>(left, rows, right, b.stride, to, c.stride, add);
      } else {
        multiply_columns<kWidth, kRows, 1>(left, rows, right, b.stride, to, c.stride, add);
      }
    }
  }
}

// With so many rows and panels at a time that their sums fill the registers.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target("avx512f"))) void multiply_avx512(int64_t rows, const In& a, const In& b, const float* bias,
                                                        const Out& c) {
  multiply<16, 14, 2>(rows, a, b, bias, c);
}
__attribute__((target("avx512f"))) void multiply_transposed_avx512(int64_t rows, const In& a, const In& b, const Out& c,
                                                                   bool add) {
  multiply_transposed<16, 8, 2>(rows, a, b, c, add);
}
__attribute__((target("avx2,fma"))) void multiply_avx2(int64_t rows, const In& a, const In& b, const float* bias,
                                                       const Out& c) {
  multiply<8, 6, 1>(rows, a, b, bias, c);
}
__attribute__((target("avx2,fma"))) void multiply_transposed_avx2(int64_t rows, const In& a, const In& b, const Out& c,
                                                                  bool add) {
  multiply_transposed<8, 4, 1>(rows, a, b, c, add);
}
#endif
void multiply_anywhere(int64_t rows, const In& a, const In& b, const float* bias, const Out& c) {
  multiply<4, 2, 1>(rows, a, b, bias, c);
}
void multiply_transposed_anywhere(int64_t rows, const In& a, const In& b, const Out& c, bool add) {
  multiply_transposed<4, 2, 1>(rows, a, b, c, add);
}

struct Implementation {
  decltype(&multiply_anywhere) product = multiply_anywhere;
  decltype(&multiply_transposed_anywhere) transposed = multiply_transposed_anywhere;
};

Implementation choose() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  const std::string best = isa();
  if (best.rfind("avx512", 0) == 0) return {multiply_avx512, multiply_transposed_avx512};
  if (best.rfind("avx2", 0) == 0) return {multiply_avx2, multiply_transposed_avx2};
#endif
  return {};
}

const Implementation& implementation() {
  static const Implementation chosen = choose();
  return chosen;
}

}  // namespace

void multiply_panels(int64_t rows, const In& a, const In& b, const float* bias, const Out& c) {
  implementation().product(rows, a, b, bias, c);
}

void multiply_transposed_panels(int64_t rows, const In& a, const In& b, const Out& c, bool add) {
  implementation().transposed(rows, a, b, c, add);
}

}  // namespace sparknet
