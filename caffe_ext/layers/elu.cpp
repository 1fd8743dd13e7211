#include <cmath>

#include "core/elementwise.h"

namespace sparknet {

// y = x where x > 0, else alpha (exp(x) - 1) (Clevert et al., "Fast and accurate deep network learning by exponential
// linear units", ICLR 2016).
class ELULayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    alpha_ = static_cast<float>(param().message("elu_param").real("alpha"));
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(bottom[0]->data.native(), top[0]->data,
        [alpha = alpha_](float x) { return x > 0.0f ? x : alpha * std::expm1(x); });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    if (top[0] == bottom[0]) {
      // y has the sign of x for every alpha >= 0.
      map(top[0]->data.native(), top[0]->diff, bottom[0]->diff,
          [alpha = alpha_](float y, float dy) { return dy * (y > 0.0f ? 1.0f : alpha + y); });
    } else {
      map(bottom[0]->data.native(), top[0]->diff, bottom[0]->diff,
          [alpha = alpha_](float x, float dy) { return dy * (x > 0.0f ? 1.0f : alpha * std::exp(x)); });
    }
  }

 private:
  float alpha_ = 1.0f;
};

REGISTER_LAYER(ELULayer, LayerSpec("ELU", "x where positive, else alpha (exp(x) - 1)")
                             .messages({"elu_param"})
                             .positional({"alpha"})
                             .in_place()
                             .reads_bottom());

}  // namespace sparknet
