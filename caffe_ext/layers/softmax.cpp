#include "core/softmax.h"

#include "core/layer.h"

namespace sparknet {

// y = exp(x) / sum of exp(x) along `axis`, for each place of the other axes.
class SoftmaxLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape shape = bottom[0]->shape();
    const int axis = canonical_axis(shape, param().message("softmax_param").integer("axis"));
    view_ = {count(shape, 0, axis), shape[axis], count(shape, axis + 1, static_cast<int>(shape.size()))};
    if (top[0] != bottom[0]) top[0]->reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->data.read();
    softmax(x, top[0]->data.overwrite(), view_);
  }

  // dx = y (dy - sum of y dy along the axis)
  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float* y = top[0]->data.read();
    const float* dy = top[0]->diff.read();
    float* dx = bottom[0]->diff.overwrite();
    const int64_t channels = view_.channels, inner = view_.inner;
    for_positions(view_, [=](int64_t offset, int64_t places) {
      float sum[kPositionGroup] = {};
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = offset + c * inner;
        for (int64_t p = 0; p < places; ++p) sum[p] += y[at + p] * dy[at + p];
      }
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = offset + c * inner;
        for (int64_t p = 0; p < places; ++p) dx[at + p] = y[at + p] * (dy[at + p] - sum[p]);
      }
    });
  }

 private:
  SoftmaxView view_{};
};

REGISTER_LAYER(SoftmaxLayer, LayerSpec("Softmax", "probabilities from scores, along an axis")
                                 .messages({"softmax_param"})
                                 .positional({"axis"})
                                 .in_place()
                                 .reads_top());

}  // namespace sparknet
