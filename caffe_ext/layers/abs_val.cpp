#include <cmath>

#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// y = |x|. The gradient at 0 is 0, as in Caffe.
class AbsValLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override { top[0]->reshape(bottom[0]->shape()); }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = bottom[0]->data.native();
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = std::fabs(x.values[i]);
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const NativeView x = bottom[0]->data.native();
    const float* dy = top[0]->diff.read_as(x.layout);
    float* dx = bottom[0]->diff.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        dx[i] = dy[i] * static_cast<float>((x.values[i] > 0.0f) - (x.values[i] < 0.0f));
      }
    });
  }
};

REGISTER_LAYER(AbsValLayer, LayerSpec("AbsVal", "the absolute value").reads_bottom());

}  // namespace sparknet
