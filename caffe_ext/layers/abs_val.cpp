#include <cmath>

#include "core/elementwise.h"

namespace sparknet {

// y = |x|. The gradient at 0 is 0, as in Caffe.
class AbsValLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(bottom[0]->data.native(), top[0]->data, [](float x) { return std::fabs(x); });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    map(bottom[0]->data.native(), top[0]->diff, bottom[0]->diff,
        [](float x, float dy) { return dy * static_cast<float>((x > 0.0f) - (x < 0.0f)); });
  }
};

REGISTER_LAYER(AbsValLayer, LayerSpec("AbsVal", "the absolute value").reads_bottom());

}  // namespace sparknet
