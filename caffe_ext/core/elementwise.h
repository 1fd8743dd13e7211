// For layers that treat all elements alike.
#pragma once

#include "core/tensor.h"

namespace sparknet {

// The tensor's values in the layout they have, but row-major where that layout has padding: for functions with f(0) !=
// 0, because padding has to stay 0.
inline NativeView unpadded(const Tensor& tensor) {
  const NativeView view = tensor.native();
  if (view.count == tensor.count()) return view;
  return {tensor.read(), tensor.count(), nullptr};
}

}  // namespace sparknet
