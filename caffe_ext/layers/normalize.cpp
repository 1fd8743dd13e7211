#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// Values divided by their Euclidean norm, sqrt(sum of squares + eps), then times a learned scale (Liu et al.,
// "ParseNet: Looking wider to see better", 2015; SSD's fork of Caffe, github.com/weiliu89/caffe). The norm is over the
// channels of each place, or with across_spatial, the default, over everything of a row. The scale is one for each
// channel, or with channel_shared, the default, a single one; 1 at first unless scale_filler says otherwise.
class NormalizeLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    const Message& fields = param().message("norm_param");
    const Shape& shape = bottom[0]->shape();
    if (shape.size() < 2) fail(ErrorKind::kShape, "the bottom must have a channel axis, but it is ", to_string(shape));
    across_ = fields.flag("across_spatial");
    shared_ = fields.flag("channel_shared");
    eps_ = static_cast<float>(fields.real("eps"));
    if (!(eps_ >= 0.0f)) fail(ErrorKind::kField, "eps must not be below 0");
    Message filler = fields.message("scale_filler");
    if (!fields.has("scale_filler")) filler.field("value").reals = {1.0};
    add_param(shared_ ? Shape{} : Shape{shape[1]}, filler);
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.size() < 2 || (!shared_ && shape[1] != params[0]->shape()[0])) {
      fail(ErrorKind::kShape, "the scale is for ", params[0]->count(), " channels, the bottom is ", to_string(shape));
    }
    top[0]->reshape(shape);
    channels_ = shape[1];
    inner_ = count(shape, 2, static_cast<int>(shape.size()));
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float *x = bottom[0]->data.read(), *scale = params[0]->data.read();
    float* y = top[0]->data.overwrite();
    const int64_t rows = bottom[0]->shape()[0], groups = across_ ? rows : rows * inner_;
    norms_.resize(groups);
    for_each_group(groups, [&](int64_t group) {
      double squares = 0.0;
      for_each_value(group, [&](int64_t at, int64_t) { squares += static_cast<double>(x[at]) * x[at]; });
      const float norm = static_cast<float>(std::sqrt(squares + eps_));
      norms_[group] = norm;
      for_each_value(group, [&](int64_t at, int64_t channel) { y[at] = scale[shared_ ? 0 : channel] * x[at] / norm; });
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    const float *x = bottom[0]->data.read(), *scale = params[0]->data.read(), *dy = top[0]->diff.read();
    const int64_t rows = bottom[0]->shape()[0], groups = across_ ? rows : rows * inner_;
    if (static_cast<int64_t>(norms_.size()) != groups) {
      fail(ErrorKind::kState, "backward needs a forward pass before it");
    }
    if (param_gradient[0]) {
      std::vector<double> sums(params[0]->count(), 0.0);
      for (int64_t group = 0; group < groups; ++group) {
        for_each_value(group, [&](int64_t at, int64_t channel) {
          sums[shared_ ? 0 : channel] += static_cast<double>(dy[at]) * x[at] / norms_[group];
        });
      }
      float* to = params[0]->diff.write();
      for (size_t i = 0; i < sums.size(); ++i) to[i] += static_cast<float>(sums[i]);
    }
    if (!propagate_down[0]) return;
    float* dx = bottom[0]->diff.overwrite();
    // With g = scale dy: dx = (g - x sum(g x) / norm²) / norm.
    for_each_group(groups, [&](int64_t group) {
      const float norm = norms_[group];
      double product = 0.0;
      for_each_value(group, [&](int64_t at, int64_t channel) {
        product += static_cast<double>(scale[shared_ ? 0 : channel]) * dy[at] * x[at];
      });
      const float pull = static_cast<float>(product / (static_cast<double>(norm) * norm));
      for_each_value(group, [&](int64_t at, int64_t channel) {
        dx[at] = (scale[shared_ ? 0 : channel] * dy[at] - x[at] * pull) / norm;
      });
    });
  }

 private:
  template <typename Body>
  void for_each_group(int64_t groups, const Body& body) const {
    const int64_t values = channels_ * (across_ ? inner_ : 1);
    parallel_for(groups, std::max<int64_t>(kElementGrain / std::max<int64_t>(values, 1), 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t group = begin; group < end; ++group) body(group);
                 });
  }

  // Calls body(index, channel) for the values that are divided by one norm: those of a row, or of a place.
  template <typename Body>
  void for_each_value(int64_t group, const Body& body) const {
    const int64_t first = across_ ? group * channels_ * inner_ : group / inner_ * channels_ * inner_ + group % inner_;
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t i = 0; i < (across_ ? inner_ : 1); ++i) body(first + c * inner_ + i, c);
    }
  }

  bool across_ = true, shared_ = true;
  float eps_ = 1e-10f;
  int64_t channels_ = 0, inner_ = 0;
  std::vector<float> norms_;  // of the last forward pass
};

REGISTER_LAYER(NormalizeLayer, LayerSpec("Normalize", "values by their Euclidean norm, times a learned scale")
                                   .messages({"norm_param"})
                                   .reads_bottom()
                                   .most(1));

}  // namespace sparknet
