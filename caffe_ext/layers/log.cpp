#include <cmath>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// y = log(shift + scale x) to a base; base -1, the default, stands for e. Where the layer works in place the gradient
// is computed from y (Caffe takes y for x there).
class LogLayer : public Layer {
 public:
  using Layer::Layer;

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

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = unpadded(bottom[0]->data);
    float* y = top[0]->data.overwrite_as(x.layout);
    const float factor = 1.0f / log_base_;
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = factor * std::log(shift_ + scale_ * x.values[i]);
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const bool in_place = top[0] == bottom[0];
    const NativeView x = unpadded(bottom[0]->data);
    const float* dy = top[0]->diff.read_as(x.layout);
    float* dx = bottom[0]->diff.overwrite_as(x.layout);
    const float factor = scale_ / log_base_;
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      if (in_place) {
        for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] * factor * std::exp(-log_base_ * x.values[i]);
      } else {
        for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] * factor / (shift_ + scale_ * x.values[i]);
      }
    });
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
