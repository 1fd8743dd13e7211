#include "core/elementwise.h"

namespace sparknet {

// y = tanh(x).
class TanHLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(bottom[0]->data.native(), top[0]->data, [](float x) { return fast_tanh(x); });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    map(top[0]->data.native(), top[0]->diff, bottom[0]->diff, [](float y, float dy) { return dy * (1.0f - y * y); });
  }
};

REGISTER_LAYER(TanHLayer, LayerSpec("TanH", "the hyperbolic tangent").messages({"tanh_param"}).in_place().reads_top());

}  // namespace sparknet
