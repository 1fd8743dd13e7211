#include <cmath>

#include "core/elementwise.h"
#include "core/error.h"

namespace sparknet {

// y = log(shift + scale x) to a base; base -1, the default, stands for e. Where the layer works in place the gradient
// is computed from y (Caffe takes y for x there).
class LogLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("log_param");
    const double base = own.real("base");
    if (base != -1.0 && !(base > 0.0 && base != 1.0 && std::isfinite(base))) {
      fail(ErrorKind::kField, "base must be above 0 and not 1, or -1 for e, not ", base);
    }
    log_base_ = static_cast<float>(base == -1.0 ? 1.0 : std::log(base));
    scale_ = static_cast<float>(own.real("scale"));
    shift_ = static_cast<float>(own.real("shift"));
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(unpadded(bottom[0]->data), top[0]->data, [factor = 1.0f / log_base_, scale = scale_, shift = shift_](float x) {
      return factor * std::log(shift + scale * x);
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float factor = scale_ / log_base_;
    if (top[0] == bottom[0]) {
      map(unpadded(bottom[0]->data), top[0]->diff, bottom[0]->diff,
          [factor, log_base = log_base_](float y, float dy) { return dy * factor * std::exp(-log_base * y); });
    } else {
      map(unpadded(bottom[0]->data), top[0]->diff, bottom[0]->diff,
          [factor, scale = scale_, shift = shift_](float x, float dy) { return dy * factor / (shift + scale * x); });
    }
  }

 private:
  float log_base_ = 1.0f, scale_ = 1.0f, shift_ = 0.0f;
};

REGISTER_LAYER(LogLayer, LayerSpec("Log", "the logarithm of shift + scale x")
                             .messages({"log_param"})
                             .positional({"base", "scale", "shift"})
                             .in_place()
                             .reads_bottom());

}  // namespace sparknet
