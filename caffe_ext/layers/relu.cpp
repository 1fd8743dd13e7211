#include "core/elementwise.h"

namespace sparknet {

// y = max(x, 0) + negative_slope min(x, 0). The gradient at 0 is the slope, as in Caffe.
class ReLULayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    slope_ = static_cast<float>(param().message("relu_param").real("negative_slope"));
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(bottom[0]->data.native(), top[0]->data,
        [slope = slope_](float x) { return (x < 0.0f ? 0.0f : x) + slope * (x < 0.0f ? x : 0.0f); });
  }

  bool keeps_top() const override { return false; }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    // In place the bottom's data is the output, which has the input's sign for every slope >= 0.
    map(bottom[0]->data.native(), top[0]->diff, bottom[0]->diff,
        [slope = slope_](float x, float dy) { return dy * (x > 0.0f ? 1.0f : slope); });
  }

 private:
  float slope_ = 0.0f;
};

REGISTER_LAYER(ReLULayer, LayerSpec("ReLU", "max(x, 0) + negative_slope min(x, 0)")
                              .messages({"relu_param"})
                              .positional({"negative_slope"})
                              .in_place()
                              .reads_bottom());

}  // namespace sparknet
