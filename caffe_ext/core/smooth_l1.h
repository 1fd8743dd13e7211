// The smooth L1 loss (Girshick, "Fast R-CNN", ICCV 2015): quadratic near 0, linear further out.
#pragma once

#include <cmath>

namespace sparknet {

// (sigma x)² / 2 where |x| < 1 / sigma², else |x| - 1 / (2 sigma²).
inline float smooth_l1(float x, float sigma_squared) {
  const float size = std::fabs(x);
  return size < 1.0f / sigma_squared ? 0.5f * x * x * sigma_squared : size - 0.5f / sigma_squared;
}

// Its derivative.
inline float smooth_l1_slope(float x, float sigma_squared) {
  return std::fabs(x) < 1.0f / sigma_squared ? sigma_squared * x : static_cast<float>((x > 0.0f) - (x < 0.0f));
}

}  // namespace sparknet
