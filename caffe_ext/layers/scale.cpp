#include "core/channels.h"
#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// y = factor x + bias, where factor and bias are learned and have the shape of the bottom's axes [axis, axis +
// num_axes) (num_axes -1: to the end; 0: a single number), so with the defaults one of each per channel.
//
// With a second bottom that one is the factor, starting at `axis`, and bias the only parameter.
class ScaleLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    const Message& fields = param().message("scale_param");
    learned_ = bottom.size() == 1;
    bias_ = fields.flag("bias_term");
    if (learned_) {
      factor_shape_ = covered_axes(fields, bottom[0]->shape());
      Message filler = fields.message("filler");
      if (!fields.has("filler")) filler.field("value").reals = {1.0};
      add_param(factor_shape_, filler);
    } else {
      factor_shape_ = bottom[1]->shape();
    }
    if (bias_) add_param(factor_shape_, fields.message("bias_filler"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (!learned_) {
      if (bias_ && bottom[1]->shape() != factor_shape_) {
        fail(ErrorKind::kShape, "the bias is for factors of shape ", to_string(factor_shape_), ", not ",
             to_string(bottom[1]->shape()));
      }
      factor_shape_ = bottom[1]->shape();
    }
    axis_ = fit_axes(param().message("scale_param"), factor_shape_, shape, "factors", learned_ ? 0 : 1);
    in_place_ = top[0] == bottom[0];
    if (!in_place_) top[0]->reshape(shape);
    input_.reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (bottom[0]->count() == 0) return;
    const ChannelView view = view_of(bottom[0]->data);
    const std::vector<float> factors = padded_channels(view, factor(bottom).data.read(), factor(bottom).count());
    std::vector<float> offsets(view.channels(), 0.0f);
    if (bias_) offsets = padded_channels(view, bias().data.read(), bias().count());
    const float* x = bottom[0]->data.read_as(view.layout);
    float* y = top[0]->data.overwrite_as(view.layout);
    const auto scale = [=, a = factors.data(), b = offsets.data()](float value, int64_t channel) {
      return value * a[channel] + b[channel];
    };
    if (in_place_) {
      // Backward needs x.
      float* kept = input_.overwrite_as(view.layout);
      for_each_value(view, [=](int64_t at, int64_t channel) {
        kept[at] = x[at];
        y[at] = scale(x[at], channel);
      });
    } else {
      for_each_value(view, [=](int64_t at, int64_t channel) { y[at] = scale(x[at], channel); });
    }
  }

  bool keeps_bottom() const override { return !in_place_ || !learned_; }
  bool keeps_top() const override { return false; }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (bottom[0]->count() == 0) return;
    const Tensor& input = in_place_ ? input_ : bottom[0]->data;
    const ChannelView view = view_of(input);
    const float* dy = top[0]->diff.read_as(view.layout);
    if (bias_ && param_gradient[params.size() - 1]) {
      add(channel_sums(view, [=](int64_t at, int64_t) { return dy[at]; }), bias().diff.write(), bias().count());
    }
    if (learned_ ? param_gradient[0] : propagate_down[1]) {
      const float* x = input.read_as(view.layout);
      Blob& blob = factor(bottom);
      if (!learned_) blob.diff.zero();  // bottoms' gradients are overwritten, parameters' added to
      add(channel_sums(view, [=](int64_t at, int64_t) { return dy[at] * x[at]; }), blob.diff.write(), blob.count());
    }
    if (propagate_down[0]) {
      const std::vector<float> factors = padded_channels(view, factor(bottom).data.read(), factor(bottom).count());
      float* dx = bottom[0]->diff.overwrite_as(view.layout);
      for_each_value(view, [=, a = factors.data()](int64_t at, int64_t channel) { dx[at] = dy[at] * a[channel]; });
    }
  }

  int64_t multiply_adds(const Blobs& bottom, const Blobs&) const override { return bottom[0]->count(); }

 private:
  Blob& factor(const Blobs& bottom) const { return learned_ ? *params[0] : *bottom[1]; }
  Blob& bias() const { return *params.back(); }

  ChannelView view_of(const Tensor& tensor) const {
    const int axes = static_cast<int>(factor_shape_.size());
    return axes == 1 ? ChannelView::of_axis(tensor, axis_) : ChannelView::of_axes(tensor.shape(), axis_, axis_ + axes);
  }

  static void add(const std::vector<float>& values, float* sums, int64_t count) {
    for (int64_t i = 0; i < count; ++i) sums[i] += values[i];
  }

  bool learned_ = true, bias_ = false, in_place_ = false;
  int axis_ = 1;
  Shape factor_shape_;
  Tensor input_;  // of the last forward pass, if in place
};

REGISTER_LAYER(ScaleLayer, LayerSpec("Scale", "multiplies by a learned factor for each channel, or by a second bottom")
                               .messages({"scale_param"})
                               .bottoms(1, 2)
                               .named({"values", "factors"})
                               .in_place()
                               .reads_bottom()
                               .most(2));

}  // namespace sparknet
