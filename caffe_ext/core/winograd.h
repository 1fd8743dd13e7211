// Convolutions with fewer multiplications than their definition has: F(4 × 4, 3 × 3) and F(4 × 4, 5 × 5) of Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016).
//
// A tile of 6 × 6 values (8 × 8 for kernels of 5) and the kernel are taken for polynomials and evaluated at 36 (64)
// points; 16 outputs then take a multiplication for each point where the definition has 144 (400). At each point the
// tiles and channels make a matrix product. The results differ from the definition's by rounding: see
// tests/engine/test_winograd.py for bounds.
#pragma once

#include <cstdint>
#include <memory>

#include "core/tensor.h"

namespace sparknet {

class Winograd {
 public:
  // Arrays lie in blocks of 16 channels (oneDNN's nChw16c), weights row-major as Convolution's. Stride and dilation
  // are 1.
  struct Problem {
    int64_t images = 0, groups = 1;
    int64_t channels = 0, outputs = 0;  // of one group
    int64_t height = 0, width = 0;      // of the wide array
    int64_t kernel = 0;                 // along both axes
    int64_t pad_h = 0, pad_w = 0;

    int64_t narrow_height() const { return height + 2 * pad_h - kernel + 1; }
    int64_t narrow_width() const { return width + 2 * pad_w - kernel + 1; }
    int64_t down() const { return (narrow_height() + 3) / 4; }  // so many tiles
    int64_t across() const { return (narrow_width() + 3) / 4; }
    int64_t tiles() const { return images * down() * across(); }
    // The one whose forward pass is this one's gradient of the wide array.
    Problem reversed() const;
  };

  // Whether it can be done so, and that is faster on this machine: a function of the problem and the machine only.
  static bool pays(const Problem& problem);

  explicit Winograd(const Problem& problem) : problem_(problem) {}

  // narrow = the convolution of wide, plus the bias unless null; if `rectify`, 0 in place of what is below
  // (NaN stays). `keep`: transformed
  // weights are kept until `weights` change.
  void forward(const float* wide, const Tensor& weights, const float* bias, bool rectify, bool keep, float* narrow);
  // wide = the gradient of forward() in direction `narrow`.
  void backward(const float* narrow, const Tensor& weights, float* wide) const;
  // Adds the gradient of the weights, or if `fresh` stores it; adds the bias's unless null.
  void add_gradients(const float* wide, const float* narrow, float* weights, bool fresh, float* bias) const;

 private:
  const Problem problem_;
  std::shared_ptr<float> kept_;
  uint64_t version_ = 0;
};

}  // namespace sparknet
