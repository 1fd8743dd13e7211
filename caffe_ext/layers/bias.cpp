#include <algorithm>

#include "core/channels.h"
#include "core/layer.h"

namespace sparknet {

// y = x + bias, where the bias is learned and has the shape of the bottom's axes [axis, axis + num_axes) (num_axes -1:
// to the end; 0: a single number), so with the defaults one for each channel. With a second bottom that one is the
// bias, starting at `axis`.
class BiasLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    const Message& fields = param().message("bias_param");
    learned_ = bottom.size() == 1;
    if (learned_) add_param(covered_axes(fields, bottom[0]->shape()), fields.message("filler"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    axis_ = fit_axes(param().message("bias_param"), bias(bottom).shape(), shape, "biases", learned_ ? 0 : 1);
    if (top[0] != bottom[0]) top[0]->reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (bottom[0]->count() == 0) return;
    const Blob& added = bias(bottom);
    const ChannelView view = view_of(bottom[0]->data, added);
    const std::vector<float> values = padded_channels(view, added.data.read(), added.count());
    const float* x = bottom[0]->data.read_as(view.layout);
    float* y = top[0]->data.overwrite_as(view.layout);
    for_each_value(view, [=, b = values.data()](int64_t at, int64_t channel) { y[at] = x[at] + b[channel]; });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (bottom[0]->count() == 0) return;
    if (learned_ ? param_gradient[0] : propagate_down[1]) {
      Blob& added = bias(bottom);
      const ChannelView view = view_of(top[0]->diff, added);
      const float* dy = top[0]->diff.read_as(view.layout);
      const std::vector<float> sums = channel_sums(view, [=](int64_t at, int64_t) { return dy[at]; });
      if (!learned_) added.diff.zero();  // bottoms' gradients are overwritten, parameters' added to
      float* to = added.diff.write();
      for (int64_t i = 0; i < added.count(); ++i) to[i] += sums[i];
    }
    if (propagate_down[0] && top[0] != bottom[0]) {
      const NativeView dy = top[0]->diff.native();
      float* dx = bottom[0]->diff.overwrite_as(dy.layout);
      parallel_for(dy.count, kElementGrain,
                   [&](int64_t begin, int64_t end) { std::copy(dy.values + begin, dy.values + end, dx + begin); });
    }
  }

 private:
  Blob& bias(const Blobs& bottom) const { return learned_ ? *params[0] : *bottom[1]; }

  ChannelView view_of(const Tensor& tensor, const Blob& added) const {
    const int axes = added.data.axes();
    return axes == 1 ? ChannelView::of_axis(tensor, axis_) : ChannelView::of_axes(tensor.shape(), axis_, axis_ + axes);
  }

  bool learned_ = true;
  int axis_ = 1;
};

REGISTER_LAYER(BiasLayer, LayerSpec("Bias", "adds a learned value for each channel, or a second bottom")
                              .messages({"bias_param"})
                              .bottoms(1, 2)
                              .named({"values", "biases"})
                              .in_place()
                              .most(1));

}  // namespace sparknet
