#include "core/elementwise.h"
#include "core/error.h"

namespace sparknet {

// y = min(max(x, 0), threshold), 6 unless told otherwise (Krizhevsky, "Convolutional deep belief networks on CIFAR-10",
// 2010; Sandler et al., "MobileNetV2", CVPR 2018). The gradient is 0 at both ends.
class ReLU6Layer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    threshold_ = static_cast<float>(param().message("relu6_param").real("threshold"));
    if (!(threshold_ > 0.0f)) fail(ErrorKind::kField, "threshold must be above 0, not ", threshold_);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(bottom[0]->data.native(), top[0]->data, [most = threshold_](float x) {
      const float above = x < 0.0f ? 0.0f : x;
      return above > most ? most : above;
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    // In place the bottom's data is the output, which lies strictly between the ends where the input does.
    map(bottom[0]->data.native(), top[0]->diff, bottom[0]->diff,
        [most = threshold_](float x, float dy) { return x > 0.0f && x < most ? dy : 0.0f; });
  }

 private:
  float threshold_ = 6.0f;
};

REGISTER_LAYER(ReLU6Layer, LayerSpec("ReLU6", "x, at least 0 and at most 6")
                               .messages({"relu6_param"})
                               .positional({"threshold"})
                               .in_place()
                               .reads_bottom());

}  // namespace sparknet
