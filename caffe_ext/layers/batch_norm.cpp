#include <cmath>

#include "core/channels.h"
#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// Batch normalisation without scale and shift, which are a Scale layer's (Ioffe and Szegedy, "Batch normalization:
// accelerating deep network training by reducing internal covariate shift", ICML 2015): y = (x - mean) / sqrt(variance
// + eps) for each channel (axis 1).
//
// As in Caffe: the parameters are the sums of means and of variances that decay by moving_average_fraction, and the sum
// of the weights in both, by which they are divided when used; while that is 0 mean and variance are 0. In TRAIN the
// batch's own mean and (biased) variance normalise, and each forward pass adds them (the variance unbiased) to the
// sums; use_global_stats, which defaults to the phase being TEST, takes the sums instead and leaves them alone.
class BatchNormLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    const Message& fields = param().message("batch_norm_param");
    fraction_ = static_cast<float>(fields.real("moving_average_fraction"));
    eps_ = static_cast<float>(fields.real("eps"));
    use_global_ = fields.has("use_global_stats") ? fields.flag("use_global_stats") : phase() == Phase::kTest;
    if (bottom[0]->shape().empty()) fail(ErrorKind::kShape, "the bottom must have at least 1 axis");
    channels_ = channels_of(bottom[0]->shape());
    const Message& zero = param().message("scale_param").message("bias_filler");  // a filler of defaults: constant 0
    add_param({channels_}, zero);
    add_param({channels_}, zero);
    add_param({1}, zero);
    param_gradient.assign(3, false);  // statistics: no solver may touch them
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.empty() || channels_of(shape) != channels_) {
      fail(ErrorKind::kShape, "the statistics are of ", channels_, " channels, the bottom is ", to_string(shape));
    }
    if (top[0] != bottom[0]) top[0]->reshape(shape);
    normalised_.reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (bottom[0]->count() == 0) return;
    const ChannelView view = view_of(bottom[0]->data);
    const float* x = bottom[0]->data.read_as(view.layout);
    const int64_t values = bottom[0]->count() / channels_;  // of a channel

    ChannelStatistics batch;
    std::vector<float>&mean = batch.mean, &variance = batch.variance;
    if (use_global_) {
      const float weight = params[2]->data.read()[0];
      const float factor = weight == 0.0f ? 0.0f : 1.0f / weight;
      mean = padded_channels(view, params[0]->data.read(), channels_);
      variance = padded_channels(view, params[1]->data.read(), channels_);
      for (float& value : mean) value *= factor;
      for (float& value : variance) value *= factor;
    } else {
      batch = channel_statistics(view, x);
      update_statistics(mean, variance, values);
    }

    inverse_deviation_.resize(view.channels());
    for (int64_t channel = 0; channel < view.channels(); ++channel) {
      inverse_deviation_[channel] = 1.0f / std::sqrt(variance[channel] + eps_);
    }
    const float* means = mean.data();
    const float* factors = inverse_deviation_.data();
    float* y = top[0]->data.overwrite_as(view.layout);
    if (use_global_) {
      for_each_value(view, [=](int64_t at, int64_t channel) { y[at] = (x[at] - means[channel]) * factors[channel]; });
    } else {
      // Backward needs y, and layers that work in place may overwrite the top.
      float* kept = normalised_.overwrite_as(view.layout);
      for_each_value(view, [=](int64_t at, int64_t channel) {
        const float value = (x[at] - means[channel]) * factors[channel];
        y[at] = value;
        kept[at] = value;
      });
    }
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0] || bottom[0]->count() == 0) return;
    const ChannelView view = view_of(use_global_ ? top[0]->diff : normalised_);
    if (static_cast<int64_t>(inverse_deviation_.size()) < channels_) {
      fail(ErrorKind::kState, "backward needs a forward pass before it");
    }
    inverse_deviation_.resize(view.channels(), 0.0f);
    const float* factors = inverse_deviation_.data();
    const float* dy = top[0]->diff.read_as(view.layout);
    float* dx = bottom[0]->diff.overwrite_as(view.layout);
    if (use_global_) {
      for_each_value(view, [=](int64_t at, int64_t channel) { dx[at] = dy[at] * factors[channel]; });
      return;
    }
    // Both mean and variance depend on every value of the channel:
    // dx = (dy - mean(dy) - y mean(dy y)) / sqrt(variance + eps).
    const float* y = normalised_.read_as(view.layout);
    const float share = static_cast<float>(channels_) / static_cast<float>(bottom[0]->count());
    std::vector<float> means = channel_sums(view, [=](int64_t at, int64_t) { return dy[at]; });
    std::vector<float> products = channel_sums(view, [=](int64_t at, int64_t) { return dy[at] * y[at]; });
    for (float& value : means) value *= share;
    for (float& value : products) value *= share;
    for_each_value(view, [=, mean = means.data(), product = products.data()](int64_t at, int64_t channel) {
      dx[at] = (dy[at] - mean[channel] - y[at] * product[channel]) * factors[channel];
    });
  }

 private:
  // A bottom of one axis has a single channel.
  static int64_t channels_of(const Shape& shape) { return shape.size() == 1 ? 1 : shape[1]; }

  static ChannelView view_of(const Tensor& tensor) {
    return tensor.axes() == 1 ? ChannelView::of_axes(tensor.shape(), 1, 1) : ChannelView::of_axis(tensor, 1);
  }

  void update_statistics(const std::vector<float>& mean, const std::vector<float>& variance, int64_t values) {
    const float unbiased = values > 1 ? static_cast<float>(values) / static_cast<float>(values - 1) : 1.0f;
    float* means = params[0]->data.write();
    float* variances = params[1]->data.write();
    float* weight = params[2]->data.write();
    weight[0] = fraction_ * weight[0] + 1.0f;
    for (int64_t channel = 0; channel < channels_; ++channel) {
      means[channel] = fraction_ * means[channel] + mean[channel];
      variances[channel] = fraction_ * variances[channel] + unbiased * variance[channel];
    }
  }

  float fraction_ = 0.999f, eps_ = 1e-5f;
  bool use_global_ = false;
  int64_t channels_ = 0;
  std::vector<float> inverse_deviation_;  // of the last forward pass
  Tensor normalised_;                     // its output, if the batch's own statistics made it
};

REGISTER_LAYER(BatchNormLayer, LayerSpec("BatchNorm", "zero mean and unit variance for each channel")
                                   .messages({"batch_norm_param"})
                                   .in_place()
                                   .most(3));

}  // namespace sparknet
