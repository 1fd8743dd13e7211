// BatchNorm and Scale after a convolution, as other weights of that convolution.
#pragma once

#include <cstdint>
#include <vector>

#include "core/layer.h"
#include "core/tensor.h"

namespace sparknet {

// Whether `scale`, a Scale layer, multiplies each of so many channels (axis 1 of `axes` axes) by a number of its own.
bool scales_channels(const Layer& scale, int64_t channels, int axes);

// y = scale ((W x + b - mean) / deviation) + shift is a convolution of x, too: each filter of W is multiplied by scale
// / deviation. For nets that are not trained, whose statistics are fixed.
class Folding {
 public:
  // Whether `next` is one that can be folded in after those that are: a BatchNorm, a Scale, or one after the other.
  // `outputs`: filters of the convolution, whose top has `axes` axes.
  bool absorb(const Layer& next, int64_t outputs, int axes);
  bool any() const { return norm_ != nullptr || scale_ != nullptr; }
  // Makes weights and bias for the parameters of a convolution (filters × ..., with a bias or without), unless they are
  // made for the present ones already.
  void update(const std::vector<std::shared_ptr<Blob>>& params);

  const Tensor& weights() const { return weights_; }
  const Tensor& bias() const { return bias_; }

 private:
  const Layer* norm_ = nullptr;
  const Layer* scale_ = nullptr;
  std::vector<uint64_t> versions_;  // of all parameters that the weights below are made of
  Tensor weights_, bias_;
};

}  // namespace sparknet
