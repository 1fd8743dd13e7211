#include <algorithm>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// x, but at least `min` and at most `max`. The gradient passes where min <= x <= max. In place that cannot be told from
// what was clipped: there it passes only between the two (in Caffe everywhere, which is wrong wherever x was clipped).
class ClipLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("clip_param");
    if (!own.has("min") || !own.has("max")) fail(ErrorKind::kField, own.has("min") ? "max" : "min", " is missing");
    min_ = static_cast<float>(own.real("min"));
    max_ = static_cast<float>(own.real("max"));
    if (!(min_ <= max_)) fail(ErrorKind::kField, "min ", min_, " must not be above max ", max_);
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = unpadded(bottom[0]->data);
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&, least = min_, most = max_](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = std::max(least, std::min(x.values[i], most));
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const bool in_place = top[0] == bottom[0];
    const NativeView x = unpadded(bottom[0]->data);
    const float* dy = top[0]->diff.read_as(x.layout);
    float* dx = bottom[0]->diff.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&, least = min_, most = max_](int64_t begin, int64_t end) {
      if (in_place) {
        for (int64_t i = begin; i < end; ++i) dx[i] = x.values[i] > least && x.values[i] < most ? dy[i] : 0.0f;
      } else {
        for (int64_t i = begin; i < end; ++i) dx[i] = x.values[i] >= least && x.values[i] <= most ? dy[i] : 0.0f;
      }
    });
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
