#include <cmath>

#include "core/elementwise.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// y = 1 / (1 + exp(-x)).
class SigmoidLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = unpadded(bottom[0]->data);
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = 0.5f * std::tanh(0.5f * x.values[i]) + 0.5f;
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const NativeView y = top[0]->data.native();
    const float* dy = top[0]->diff.read_as(y.layout);
    float* dx = bottom[0]->diff.overwrite_as(y.layout);
    parallel_for(y.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] * y.values[i] * (1.0f - y.values[i]);
    });
  }
};

REGISTER_LAYER(SigmoidLayer,
               LayerSpec("Sigmoid", "1 / (1 + exp(-x))").messages({"sigmoid_param"}).in_place().reads_top());

}  // namespace sparknet
