#include <algorithm>

#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// y = max(x, 0) + negative_slope min(x, 0). The gradient at 0 is the slope, as in Caffe.
class ReLULayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    slope_ = static_cast<float>(param().message("relu_param").real("negative_slope"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const NativeView x = bottom[0]->data.native();
    float* y = top[0]->data.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [from = x.values, y, slope = slope_](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const float value = from[i];
        y[i] = (value < 0.0f ? 0.0f : value) + slope * (value < 0.0f ? value : 0.0f);
      }
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    // In place the bottom's data is the output, which has the input's sign for every slope >= 0.
    const NativeView x = bottom[0]->data.native();
    const float* dy = top[0]->diff.read_as(x.layout);
    float* dx = bottom[0]->diff.overwrite_as(x.layout);
    parallel_for(x.count, kElementGrain, [from = x.values, dy, dx, slope = slope_](int64_t begin, int64_t end) {
    // In place dx is dy, which alone would keep the compiler from vectorising; with branches it takes ten times as
    // long.
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] * (from[i] > 0.0f ? 1.0f : slope);
    });
  }

 private:
  float slope_ = 0.0f;
};

REGISTER_LAYER(ReLULayer, LayerSpec("ReLU", "max(x, 0) + negative_slope min(x, 0)")
                              .messages({"relu_param"})
                              .positional({"negative_slope"})
                              .in_place()
                              .reads_bottom());

}  // namespace sparknet
