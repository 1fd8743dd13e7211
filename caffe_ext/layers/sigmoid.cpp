#include "core/elementwise.h"

namespace sparknet {

// y = 1 / (1 + exp(-x)).
class SigmoidLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(unpadded(bottom[0]->data), top[0]->data, [](float x) { return sigmoid(x); });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    map(top[0]->data.native(), top[0]->diff, bottom[0]->diff, [](float y, float dy) { return dy * y * (1.0f - y); });
  }
};

REGISTER_LAYER(SigmoidLayer,
               LayerSpec("Sigmoid", "1 / (1 + exp(-x))").messages({"sigmoid_param"}).in_place().reads_top());

}  // namespace sparknet
