#include <cmath>

#include "core/elementwise.h"
#include "core/error.h"

namespace sparknet {

// y = (shift + scale x)^power. With scale 0 or power 0 that is a constant with gradient 0, as in Caffe. The gradient is
// computed from x, not as y / x as Caffe does, which gives NaN where shift + scale x is 0.
//
// The type does not say reads_bottom(), because with power 1 it reads none. With others, as in Caffe, a layer that has
// overwritten the bottom in place since then makes the gradient wrong.
class PowerLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("power_param");
    power_ = static_cast<float>(own.real("power"));
    scale_ = static_cast<float>(own.real("scale"));
    shift_ = static_cast<float>(own.real("shift"));
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = unpadded(bottom[0]->data);
    Tensor& y = top[0]->data;
    if (power_ * scale_ == 0.0f) {
      map(x, y, [value = power_ == 0.0f ? 1.0f : std::pow(shift_, power_)](float) { return value; });
    } else if (power_ == 1.0f) {
      map(x, y, [scale = scale_, shift = shift_](float value) { return shift + scale * value; });
    } else if (power_ == 2.0f) {
      map(x, y, [scale = scale_, shift = shift_](float value) {
        const float sum = shift + scale * value;
        return sum * sum;
      });
    } else {
      map(x, y, [power = power_, scale = scale_, shift = shift_](float value) {
        return std::pow(shift + scale * value, power);
      });
    }
  }

  // dx = dy power scale (shift + scale x)^(power - 1)
  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float slope = power_ * scale_;
    Tensor& dx = bottom[0]->diff;
    if (slope == 0.0f) {
      dx.zero();
      return;
    }
    if (power_ == 1.0f) {
      map(top[0]->diff.native(), dx, [slope](float dy) { return slope * dy; });
      return;
    }
    if (top[0] == bottom[0]) {
      fail(ErrorKind::kState, "in place, the gradient of a power other than 1 cannot be computed: the input is gone; ",
           "give the layer a top of its own");
    }
    const NativeView x = unpadded(bottom[0]->data);
    if (power_ == 2.0f) {
      map(x, top[0]->diff, dx, [slope, scale = scale_, shift = shift_](float value, float dy) {
        return dy * slope * (shift + scale * value);
      });
    } else {
      map(x, top[0]->diff, dx, [slope, below = power_ - 1.0f, scale = scale_, shift = shift_](float value, float dy) {
        return dy * slope * std::pow(shift + scale * value, below);
      });
    }
  }

 private:
  float power_ = 1.0f, scale_ = 1.0f, shift_ = 0.0f;
};

REGISTER_LAYER(PowerLayer, LayerSpec("Power", "(shift + scale x) to a power")
                               .messages({"power_param"})
                               .positional({"power", "scale", "shift"})
                               .in_place());

}  // namespace sparknet
