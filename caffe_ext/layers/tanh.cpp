#include <cmath>

#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// y = tanh(x).
class TanHLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = bottom[0]->data.native();
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = std::tanh(x.values[i]);
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const NativeView y = top[0]->data.native();
    const float* dy = top[0]->diff.read_as(y.layout);
    float* dx = bottom[0]->diff.overwrite_as(y.layout);
    parallel_for(y.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] * (1.0f - y.values[i] * y.values[i]);
    });
  }
};

REGISTER_LAYER(TanHLayer, LayerSpec("TanH", "the hyperbolic tangent").messages({"tanh_param"}).in_place().reads_top());

}  // namespace sparknet
