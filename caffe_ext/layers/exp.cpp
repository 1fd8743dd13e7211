#include <cmath>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// y = base^(shift + scale x); base -1, the default, stands for e.
class ExpLayer : public Layer {
 public:
  using Layer::Layer;

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

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = unpadded(bottom[0]->data);
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = outer_ * std::exp(inner_ * x.values[i]);
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const NativeView y = top[0]->data.native();
    const float* dy = top[0]->diff.read_as(y.layout);
    float* dx = bottom[0]->diff.overwrite_as(y.layout);
    parallel_for(y.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] * y.values[i] * inner_;
    });
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
