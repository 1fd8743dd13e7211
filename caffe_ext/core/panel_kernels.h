// The inner loops of products of panels (core/panels.h), whose sums stay in registers.
//
// They are inlined into functions compiled for vectors of kWidth floats: AVX-512, AVX2, or what every CPU has.
#pragma once

#include <cstdint>
#include <cstring>

#define SPARKNET_INLINE inline __attribute__((always_inline))

namespace sparknet {

constexpr int kLanes = 16;  // of a panel

template <int kWidth>
struct Floats {
  typedef float Vector __attribute__((vector_size(4 * kWidth)));
};

// c[r][p][lane] = sum over blocks and k < 16 of a[r][block][k] b[p][block][k][lane], plus bias[p][lane] if there is
// any, for kRows rows r and kPanels panels p. Strides: floats from one to the next; in b they are 256, 16 and 1 within
// a panel.
template <int kWidth, int kRows, int kPanels>
SPARKNET_INLINE void multiply_rows(const float* a, int64_t a_row, int64_t a_block, int64_t blocks, const float* b,
                                   int64_t b_panel, const float* bias, float* c, int64_t c_row, int64_t c_panel) {
  using Vector = typename Floats<kWidth>::Vector;
  constexpr int kPieces = kLanes / kWidth;
  Vector sums[kRows][kPanels * kPieces] = {};
  if (bias != nullptr) {
    for (int row = 0; row < kRows; ++row) std::memcpy(sums[row], bias, sizeof sums[row]);
  }
  for (int64_t block = 0; block < blocks; ++block) {
#pragma GCC unroll 4
    for (int k = 0; k < kLanes; ++k) {
      Vector right[kPanels * kPieces];
      for (int i = 0; i < kPanels * kPieces; ++i) {
        std::memcpy(&right[i], b + i / kPieces * b_panel + k * kLanes + i % kPieces * kWidth, sizeof right[i]);
      }
      for (int row = 0; row < kRows; ++row) {
        for (int i = 0; i < kPanels * kPieces; ++i) sums[row][i] += a[row * a_row + k] * right[i];
      }
    }
    a += a_block;
    b += kLanes * kLanes;
  }
  for (int row = 0; row < kRows; ++row) {
    for (int i = 0; i < kPanels * kPieces; ++i) {
      std::memcpy(c + row * c_row + i / kPieces * c_panel + i % kPieces * kWidth, &sums[row][i], sizeof sums[row][i]);
    }
  }
}

// c[p][r][lane] (+)= sum over t < count of a[t][r] b[p][t][lane], for kRows of the 16 columns r of a panel a and for
// kPanels panels b and c.
template <int kWidth, int kRows, int kPanels>
SPARKNET_INLINE void multiply_columns(const float* a, int64_t count, const float* b, int64_t b_panel, float* c,
                                      int64_t c_panel, bool add) {
  using Vector = typename Floats<kWidth>::Vector;
  constexpr int kPieces = kLanes / kWidth;
  Vector sums[kRows][kPanels * kPieces] = {};
  const auto target = [=](int row, int i) { return c + row * kLanes + i / kPieces * c_panel + i % kPieces * kWidth; };
  if (add) {
    for (int row = 0; row < kRows; ++row) {
      for (int i = 0; i < kPanels * kPieces; ++i) std::memcpy(&sums[row][i], target(row, i), sizeof sums[row][i]);
    }
  }
#pragma GCC unroll 4
  for (int64_t t = 0; t < count; ++t) {
    Vector right[kPanels * kPieces];
    for (int i = 0; i < kPanels * kPieces; ++i) {
      std::memcpy(&right[i], b + i / kPieces * b_panel + t * kLanes + i % kPieces * kWidth, sizeof right[i]);
    }
    for (int row = 0; row < kRows; ++row) {
      for (int i = 0; i < kPanels * kPieces; ++i) sums[row][i] += a[t * kLanes + row] * right[i];
    }
  }
  for (int row = 0; row < kRows; ++row) {
    for (int i = 0; i < kPanels * kPieces; ++i) std::memcpy(target(row, i), &sums[row][i], sizeof sums[row][i]);
  }
}

}  // namespace sparknet
