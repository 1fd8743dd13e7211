#include <algorithm>
#include <cmath>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// y = (shift + scale x)^power. With scale 0 or power 0 that is a constant with gradient 0, as in Caffe. The gradient is
// computed from x, not as y / x as Caffe does, which gives NaN where shift + scale x is 0.
//
// The type does not say reads_bottom(), because with power 1 it reads none. With others, as in Caffe, a layer that has
// overwritten the bottom in place since then makes the gradient wrong.
class PowerLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("power_param");
    power_ = static_cast<float>(own.real("power"));
    scale_ = static_cast<float>(own.real("scale"));
    shift_ = static_cast<float>(own.real("shift"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float power = power_, scale = scale_, shift = shift_;
    const NativeView x = unpadded(bottom[0]->data);
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      if (power * scale == 0.0f) {
        std::fill(y + begin, y + end, power == 0.0f ? 1.0f : std::pow(shift, power));
      } else if (power == 1.0f) {
        for (int64_t i = begin; i < end; ++i) y[i] = shift + scale * x.values[i];
      } else if (power == 2.0f) {
        for (int64_t i = begin; i < end; ++i) y[i] = (shift + scale * x.values[i]) * (shift + scale * x.values[i]);
      } else {
        for (int64_t i = begin; i < end; ++i) y[i] = std::pow(shift + scale * x.values[i], power);
      }
    });
  }

  // dx = dy power scale (shift + scale x)^(power - 1)
  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float power = power_, scale = scale_, shift = shift_, slope = power_ * scale_;
    if (slope == 0.0f) {
      bottom[0]->diff.zero();
      return;
    }
    if (power == 1.0f) {
      const NativeView dy = top[0]->diff.native();
      float* dx = bottom[0]->diff.overwrite_as(dy.layout);
      parallel_for(dy.count, kElementGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) dx[i] = slope * dy.values[i];
      });
      return;
    }
    if (top[0] == bottom[0]) {
      fail(ErrorKind::kState, "in place, the gradient of a power other than 1 cannot be computed: the input is gone; ",
           "give the layer a top of its own");
    }
    const NativeView x = unpadded(bottom[0]->data);
    const float* dy = top[0]->diff.read_as(x.layout);
    float* dx = bottom[0]->diff.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      if (power == 2.0f) {
        for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] * slope * (shift + scale * x.values[i]);
      } else {
        for (int64_t i = begin; i < end; ++i) {
          dx[i] = dy[i] * slope * std::pow(shift + scale * x.values[i], power - 1.0f);
        }
      }
    });
  }

 private:
  float power_ = 1.0f, scale_ = 1.0f, shift_ = 0.0f;
};

REGISTER_LAYER(PowerLayer, LayerSpec("Power", "(shift + scale x) to a power")
                               .messages({"power_param"})
                               .positional({"power", "scale", "shift"})
                               .in_place());

}  // namespace sparknet
