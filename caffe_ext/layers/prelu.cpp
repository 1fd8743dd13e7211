#include "core/channels.h"
#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// y = max(x, 0) + slope min(x, 0) with a learned slope for each channel (axis 1), or one for all with channel_shared
// (He et al., "Delving deep into rectifiers", ICCV 2015). The gradient at 0 is the slope, as in Caffe; slopes start at
// 0.25 unless `filler` says otherwise.
class PReLULayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    const Message& fields = param().message("prelu_param");
    const Shape& shape = bottom[0]->shape();
    if (shape.size() < 2) {
      fail(ErrorKind::kShape, "the bottom must have at least 2 axes (rows, channels), not ", to_string(shape));
    }
    shared_ = fields.flag("channel_shared");
    Message filler = fields.message("filler");
    if (!fields.has("filler")) filler.field("value").reals = {0.25};
    add_param(shared_ ? Shape{} : Shape{shape[1]}, filler);
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.size() < 2 || (!shared_ && shape[1] != params[0]->count())) {
      fail(ErrorKind::kShape, "the slopes are for ", params[0]->count(), " channels, the bottom is ", to_string(shape));
    }
    in_place_ = top[0] == bottom[0];
    if (!in_place_) top[0]->reshape(shape);
    input_.reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (bottom[0]->count() == 0) return;
    const ChannelView view = view_of(bottom[0]->data);
    const std::vector<float> slopes = padded_channels(view, params[0]->data.read(), params[0]->count());
    const float* x = bottom[0]->data.read_as(view.layout);
    if (in_place_) {
      // Backward needs x, whose sign a negative slope would hide.
      float* kept = input_.overwrite_as(view.layout);
      for_each_value(view, [=](int64_t at, int64_t) { kept[at] = x[at]; });
      x = kept;
    }
    float* y = top[0]->data.overwrite_as(view.layout);
    for_each_value(view, [=, slope = slopes.data()](int64_t at, int64_t channel) {
      y[at] = (x[at] < 0.0f ? 0.0f : x[at]) + slope[channel] * (x[at] < 0.0f ? x[at] : 0.0f);
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (bottom[0]->count() == 0) return;
    const Tensor& input = in_place_ ? input_ : bottom[0]->data;
    const ChannelView view = view_of(input);
    const float* x = input.read_as(view.layout);
    const float* dy = top[0]->diff.read_as(view.layout);
    if (param_gradient[0]) {
      const std::vector<float> sums =
          channel_sums(view, [=](int64_t at, int64_t) { return x[at] > 0.0f ? 0.0f : dy[at] * x[at]; });
      float* to = params[0]->diff.write();
      for (int64_t i = 0; i < params[0]->count(); ++i) to[i] += sums[i];
    }
    if (propagate_down[0]) {
      const std::vector<float> slopes = padded_channels(view, params[0]->data.read(), params[0]->count());
      float* dx = bottom[0]->diff.overwrite_as(view.layout);
      for_each_value(view, [=, slope = slopes.data()](int64_t at, int64_t channel) {
        dx[at] = dy[at] * (x[at] > 0.0f ? 1.0f : slope[channel]);
      });
    }
  }

 private:
  ChannelView view_of(const Tensor& tensor) const {
    return shared_ ? ChannelView::of_axes(tensor.shape(), 0, 0) : ChannelView::of_axis(tensor, 1);
  }

  bool shared_ = false, in_place_ = false;
  Tensor input_;  // of the last forward pass, if in place
};

REGISTER_LAYER(PReLULayer, LayerSpec("PReLU", "max(x, 0) + slope min(x, 0) with learned slopes")
                               .messages({"prelu_param"})
                               .in_place()
                               .reads_bottom()
                               .most(1));

}  // namespace sparknet
