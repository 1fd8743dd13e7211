#include "core/elementwise.h"
#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// 1 where x > threshold, else 0.
class ThresholdLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    threshold_ = static_cast<float>(param().message("threshold_param").real("threshold"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = unpadded(bottom[0]->data);
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&, threshold = threshold_](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = x.values[i] > threshold ? 1.0f : 0.0f;
    });
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
