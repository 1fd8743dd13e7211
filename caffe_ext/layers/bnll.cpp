#include <cmath>

#include "core/elementwise.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// y = log(1 + exp(x)) ("binomial normal log likelihood", softplus). Where the layer works in place the gradient is
// computed from y (Caffe takes y for x there).
class BNLLLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = unpadded(bottom[0]->data);
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float value = x.values[i];
        y[i] = (value > 0.0f ? value : 0.0f) + std::log1p(std::exp(-std::fabs(value)));
      }
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const bool in_place = top[0] == bottom[0];
    const NativeView x = unpadded(bottom[0]->data);
    const float* dy = top[0]->diff.read_as(x.layout);
    float* dx = bottom[0]->diff.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      if (in_place) {
        for (int64_t i = begin; i < end; ++i) dx[i] = -dy[i] * std::expm1(-x.values[i]);
      } else {
        for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] * (0.5f * std::tanh(0.5f * x.values[i]) + 0.5f);
      }
    });
  }
};

REGISTER_LAYER(BNLLLayer, LayerSpec("BNLL", "log(1 + exp(x))").in_place().reads_bottom());

}  // namespace sparknet
