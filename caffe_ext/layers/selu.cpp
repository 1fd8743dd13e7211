#include <cmath>

#include "core/elementwise.h"
#include "core/error.h"

namespace sparknet {

// y = lambda x where x > 0, else lambda alpha (exp(x) - 1) (Klambauer et al., "Self-normalizing neural networks", NIPS
// 2017), under the name that its implementation for Caffe has.
class SeLuLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("selu_param");
    for (const char* field : {"lambda", "alpha"}) {
      if (!(own.real(field) > 0.0)) fail(ErrorKind::kField, field, " must be above 0, not ", own.real(field));
    }
    lambda_ = static_cast<float>(own.real("lambda"));
    limit_ = static_cast<float>(own.real("lambda") * own.real("alpha"));
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(bottom[0]->data.native(), top[0]->data,
        [slope = lambda_, limit = limit_](float x) { return x > 0.0f ? slope * x : limit * std::expm1(x); });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    // y has the sign of x.
    map(top[0]->data.native(), top[0]->diff, bottom[0]->diff,
        [slope = lambda_, limit = limit_](float y, float dy) { return dy * (y > 0.0f ? slope : y + limit); });
  }

 private:
  float lambda_ = 0.0f, limit_ = 0.0f;  // limit: minus y far below 0
};

REGISTER_LAYER(SeLuLayer, LayerSpec("SeLu", "lambda x where positive, else lambda alpha (exp(x) - 1)")
                              .messages({"selu_param"})
                              .positional({"lambda", "alpha"})
                              .in_place()
                              .reads_top());

}  // namespace sparknet
