#include <algorithm>
#include <cmath>

#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// y = x where x > 0, else alpha (exp(x) - 1) (Clevert et al., "Fast and accurate deep network learning by exponential
// linear units", ICLR 2016).
class ELULayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    alpha_ = static_cast<float>(param().message("elu_param").real("alpha"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = bottom[0]->data.native();
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float value = x.values[i];
        y[i] = value > 0.0f ? value : alpha_ * std::expm1(value);
      }
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    // In place the bottom's data is the output, which has the input's sign for every alpha >= 0.
    const NativeView x = bottom[0]->data.native();
    const float* y = top[0]->data.read_as(x.layout);
    const float* dy = top[0]->diff.read_as(x.layout);
    float* dx = bottom[0]->diff.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] * (x.values[i] > 0.0f ? 1.0f : alpha_ + y[i]);
    });
  }

 private:
  float alpha_ = 1.0f;
};

REGISTER_LAYER(ELULayer, LayerSpec("ELU", "x where positive, else alpha (exp(x) - 1)")
                             .messages({"elu_param"})
                             .positional({"alpha"})
                             .in_place()
                             .reads_bottom()
                             .reads_top());

}  // namespace sparknet
