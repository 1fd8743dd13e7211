#include <algorithm>

#include "core/elementwise.h"
#include "core/error.h"

namespace sparknet {

// x, but at least `min` and at most `max`. The gradient passes where min <= x <= max. In place that cannot be told from
// what was clipped: there it passes only between the two (in Caffe everywhere, which is wrong wherever x was clipped).
class ClipLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("clip_param");
    if (!own.has("min") || !own.has("max")) fail(ErrorKind::kField, own.has("min") ? "max" : "min", " is missing");
    min_ = static_cast<float>(own.real("min"));
    max_ = static_cast<float>(own.real("max"));
    if (!(min_ <= max_)) fail(ErrorKind::kField, "min ", min_, " must not be above max ", max_);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    map(unpadded(bottom[0]->data), top[0]->data,
        [least = min_, most = max_](float x) { return std::max(least, std::min(x, most)); });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    if (top[0] == bottom[0]) {
      map(unpadded(bottom[0]->data), top[0]->diff, bottom[0]->diff,
          [least = min_, most = max_](float y, float dy) { return y > least && y < most ? dy : 0.0f; });
    } else {
      map(unpadded(bottom[0]->data), top[0]->diff, bottom[0]->diff,
          [least = min_, most = max_](float x, float dy) { return x >= least && x <= most ? dy : 0.0f; });
    }
  }

 private:
  float min_ = 0.0f, max_ = 0.0f;
};

REGISTER_LAYER(ClipLayer, LayerSpec("Clip", "x, at least min and at most max")
                              .messages({"clip_param"})
                              .positional({"min", "max"})
                              .in_place()
                              .reads_bottom());

}  // namespace sparknet
