#include <cmath>

#include "core/dropout.h"
#include "core/elementwise.h"

namespace sparknet {

// In TRAIN each element becomes alpha with probability dropout_ratio, then everything a x + b, with a and b such that
// mean 0 and variance 1 stay; in TEST y = x ("alpha dropout": Klambauer et al., "Self-normalizing neural networks",
// NIPS 2017). alpha is the limit of SeLu far below 0.
class SeLuDropoutLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& fields = param().message("selu_dropout_param");
    ratio_ = read_dropout_ratio(fields);
    const double alpha = fields.real("alpha"), stays = 1.0 - ratio_;
    const double factor = 1.0 / std::sqrt(stays + alpha * alpha * stays * ratio_);
    factor_ = static_cast<float>(factor);
    shift_ = static_cast<float>(-factor * ratio_ * alpha);
    dropped_ = static_cast<float>(factor * alpha) + shift_;
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    key_ = random_key;
    if (phase() == Phase::kTest) {
      if (top[0] != bottom[0]) map(bottom[0]->data.native(), top[0]->data, [](float x) { return x; });
      return;
    }
    // Row-major: padding would not stay 0.
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    draw_dropout(key_, ratio_, bottom[0]->count(),
                 [=](int64_t i, bool stays) { y[i] = stays ? factor_ * x[i] + shift_ : dropped_; });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    if (phase() == Phase::kTest) {
      if (top[0] != bottom[0]) map(top[0]->diff.native(), bottom[0]->diff, [](float dy) { return dy; });
      return;
    }
    const float* dy = top[0]->diff.read();
    float* dx = bottom[0]->diff.overwrite();
    draw_dropout(key_, ratio_, bottom[0]->count(),
                 [=](int64_t i, bool stays) { dx[i] = stays ? factor_ * dy[i] : 0.0f; });
  }

 private:
  double ratio_ = 0.0;
  float factor_ = 1.0f, shift_ = 0.0f, dropped_ = 0.0f;  // dropped: what an element that drops out becomes
  uint64_t key_ = 0;
};

REGISTER_LAYER(SeLuDropoutLayer, LayerSpec("SeLuDropout", "dropout that keeps mean and variance, for SeLu")
                                     .messages({"selu_dropout_param"})
                                     .positional({"dropout_ratio"})
                                     .in_place());

}  // namespace sparknet
