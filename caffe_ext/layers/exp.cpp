#include <cmath>

#include "core/elementwise.h"
#include "core/error.h"

namespace sparknet {

// y = base^(shift + scale x); base -1, the default, stands for e.
class ExpLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("exp_param");
    const double base = own.real("base");
    if (base != -1.0 && !(base > 0.0 && std::isfinite(base))) {
      fail(ErrorKind::kField, "base must be above 0, or -1 for e, not ", base);
    }
    const double log_base = base == -1.0 ? 1.0 : std::log(base);
    inner_ = static_cast<float>(log_base * own.real("scale"));
    outer_ = static_cast<float>(std::exp(log_base * own.real("shift")));
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(unpadded(bottom[0]->data), top[0]->data,
        [inner = inner_, outer = outer_](float x) { return outer * std::exp(inner * x); });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    map(top[0]->data.native(), top[0]->diff, bottom[0]->diff,
        [inner = inner_](float y, float dy) { return dy * y * inner; });
  }

 private:
  float inner_ = 1.0f, outer_ = 1.0f;  // y = outer exp(inner x)
};

REGISTER_LAYER(ExpLayer, LayerSpec("Exp", "a base to the power shift + scale x")
                             .messages({"exp_param"})
                             .positional({"base", "scale", "shift"})
                             .in_place()
                             .reads_top());

}  // namespace sparknet
