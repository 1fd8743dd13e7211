#include <cmath>

#include "core/elementwise.h"

namespace sparknet {

// y = log(1 + exp(x)) ("binomial normal log likelihood", softplus). Where the layer works in place the gradient is
// computed from y (Caffe takes y for x there).
class BNLLLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(unpadded(bottom[0]->data), top[0]->data,
        [](float x) { return (x > 0.0f ? x : 0.0f) + std::log1p(std::exp(-std::fabs(x))); });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    if (top[0] == bottom[0]) {
      map(unpadded(bottom[0]->data), top[0]->diff, bottom[0]->diff,
          [](float y, float dy) { return -dy * std::expm1(-y); });
    } else {
      map(unpadded(bottom[0]->data), top[0]->diff, bottom[0]->diff, [](float x, float dy) { return dy * sigmoid(x); });
    }
  }
};

REGISTER_LAYER(BNLLLayer, LayerSpec("BNLL", "log(1 + exp(x))").in_place().reads_bottom());

}  // namespace sparknet
