// For layers that treat all elements alike.
#pragma once

#include "core/layer.h"
#include "core/parallel.h"
#include "core/tensor.h"
#include "core/vector_math.h"

namespace sparknet {

// The tensor's values in the layout they have, but row-major where that layout has padding: for functions with f(0) !=
// 0, because padding has to stay 0.
inline NativeView unpadded(const Tensor& tensor) {
  const NativeView view = tensor.native();
  if (view.count == tensor.count()) return view;
  return {tensor.read(), tensor.count(), nullptr};
}

// A layer with one bottom, and a top of its shape that may be the bottom itself.
class ElementwiseLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

 protected:
  // y = value(x), element by element; y may be the tensor that x is a view of. Loops are vectorised on the promise that
  // calls do not depend on each other, and only where `value` captures by value and is a local of the loop's function.
  template <typename Value>
  static void map(const NativeView& x, Tensor& y, const Value& value) {
    float* to = y.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [from = x.values, to, value](int64_t begin, int64_t end) {
      const Value f = value;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) to[i] = f(from[i]);
    });
  }

  // y = value(a, b), where b is read in a's layout: for gradients, of what is known of the forward pass and of dy.
  template <typename Value>
  static void map(const NativeView& a, const Tensor& b, Tensor& y, const Value& value) {
    const float* second = b.read_as(a.layout);
    float* to = y.overwrite_as(a.layout);
    parallel_for(a.count, kElementGrain, [first = a.values, second, to, value](int64_t begin, int64_t end) {
      const Value f = value;
      // In place y is b, which alone would keep the compiler from vectorising.
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) to[i] = f(first[i], second[i]);
    });
  }
};

}  // namespace sparknet
