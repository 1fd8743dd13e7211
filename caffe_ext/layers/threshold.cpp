#include "core/elementwise.h"
#include "core/error.h"

namespace sparknet {

// 1 where x > threshold, else 0.
class ThresholdLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    threshold_ = static_cast<float>(param().message("threshold_param").real("threshold"));
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(unpadded(bottom[0]->data), top[0]->data,
        [threshold = threshold_](float x) { return x > threshold ? 1.0f : 0.0f; });
  }

  void backward(const Blobs&, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    throw Error(ErrorKind::kState,
                join("Threshold has no gradient, but a loss, a loss_weight or force_backward asks for one (of `",
                     bottom[0]->name, "`); write propagate_down: false into the layer or drop force_backward"),
                0);
  }

 private:
  float threshold_ = 0.0f;
};

REGISTER_LAYER(ThresholdLayer, LayerSpec("Threshold", "1 where x is above the threshold, else 0")
                                   .messages({"threshold_param"})
                                   .positional({"threshold"})
                                   .in_place());

}  // namespace sparknet
