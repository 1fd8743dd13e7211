#include <cmath>

#include "core/elementwise.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// y = x sigmoid(beta x) (Ramachandran et al., "Searching for activation functions", 2017).
class SwishLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    beta_ = static_cast<float>(param().message("swish_param").real("beta"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
    sigmoid_.reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = bottom[0]->data.native();
    float* s = sigmoid_.overwrite_as(x.layout);
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        s[i] = sigmoid(beta_ * x.values[i]);
        y[i] = x.values[i] * s[i];
      }
    });
  }

  // dx = dy (beta y + sigmoid (1 - beta y))
  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const NativeView y = top[0]->data.native();
    const float* s = sigmoid_.read_as(y.layout);
    const float* dy = top[0]->diff.read_as(y.layout);
    float* dx = bottom[0]->diff.overwrite_as(y.layout);
    parallel_for(y.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float scaled = beta_ * y.values[i];
        dx[i] = dy[i] * (scaled + s[i] * (1.0f - scaled));
      }
    });
  }

 private:
  float beta_ = 1.0f;
  Tensor sigmoid_;  // of the last forward pass
};

REGISTER_LAYER(
    SwishLayer,
    LayerSpec("Swish", "x sigmoid(beta x)").messages({"swish_param"}).positional({"beta"}).in_place().reads_top());

}  // namespace sparknet
