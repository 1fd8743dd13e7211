#include <algorithm>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// a x + y, where a has a number for each channel of each row of x and y (Hu et al., "Squeeze-and-excitation networks",
// CVPR 2018): the scale of a block and its shortcut in one. a is N × C or N × C × 1 × 1.
class AxpyLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape &a = bottom[0]->shape(), &x = bottom[1]->shape();
    if (x.size() < 2 || a.size() < 2 || a[0] != x[0] || a[1] != x[1] || bottom[0]->count() != x[0] * x[1]) {
      throw Error(ErrorKind::kShape,
                  join("`", bottom[0]->name, "` (", to_string(a), ") must have one number for each channel of `",
                       bottom[1]->name, "` (", to_string(x), "): N × C or N × C × 1 × 1"),
                  0);
    }
    if (bottom[2]->shape() != x) {
      throw Error(ErrorKind::kShape,
                  join("`", bottom[2]->name, "` (", to_string(bottom[2]->shape()), ") must have the shape of `",
                       bottom[1]->name, "` (", to_string(x), ")"),
                  2);
    }
    top[0]->reshape(x);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float *a = bottom[0]->data.read(), *x = bottom[1]->data.read(), *y = bottom[2]->data.read();
    float* to = top[0]->data.overwrite();
    for_each_channel(bottom, [=](int64_t channel, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i] = a[channel] * x[i] + y[i];
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    const float *a = bottom[0]->data.read(), *x = bottom[1]->data.read(), *dy = top[0]->diff.read();
    if (propagate_down[0]) {
      float* da = bottom[0]->diff.overwrite();
      for_each_channel(bottom, [=](int64_t channel, int64_t begin, int64_t end) {
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = begin; i < end; ++i) sum += x[i] * dy[i];
        da[channel] = sum;
      });
    }
    if (propagate_down[1]) {
      float* dx = bottom[1]->diff.overwrite();
      for_each_channel(bottom, [=](int64_t channel, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) dx[i] = a[channel] * dy[i];
      });
    }
    if (propagate_down[2]) std::copy_n(dy, top[0]->count(), bottom[2]->diff.overwrite());
  }

 private:
  // Calls body(channel, first value, end of its values) for each channel of each row.
  template <typename Body>
  static void for_each_channel(const Blobs& bottom, const Body& body) {
    const Shape& shape = bottom[1]->shape();
    const int64_t values = count(shape, 2, static_cast<int>(shape.size()));
    parallel_for(shape[0] * shape[1], std::max<int64_t>(kElementGrain / std::max<int64_t>(values, 1), 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t channel = begin; channel < end; ++channel) {
                     body(channel, channel * values, (channel + 1) * values);
                   }
                 });
  }
};

REGISTER_LAYER(AxpyLayer, LayerSpec("Axpy", "a x + y, a number for each channel times x, plus y")
                              .bottoms(3, 3)
                              .named({"a", "x", "y"})
                              .reads_bottom());

}  // namespace sparknet
