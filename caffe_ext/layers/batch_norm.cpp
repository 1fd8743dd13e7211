#include <cmath>
#include <limits>

#include "core/channels.h"
#include "core/error.h"
#include "core/folding.h"
#include "core/layer.h"
#include "core/wide.h"

namespace sparknet {

namespace {

// What is done to the values of a channel: y = max((x - mean) factor + offset, floor), an array of each.
struct Normalisation {
  std::vector<float> mean, factor, offset;
  float floor = -std::numeric_limits<float>::infinity();  // 0 for ReLU
};

// The same at a row of a ChannelView: an array of `block` numbers each, for `inner` times `block` values.
struct RowNormalisation {
  const float *mean, *factor, *offset;
  float floor;
};

SPARKNET_WIDE void normalise(const float* x, float* y, int64_t inner, int64_t block, RowNormalisation row) {
  if (block == 1) {
    const float mean = *row.mean, factor = *row.factor, offset = *row.offset, floor = row.floor;
#pragma omp simd
    for (int64_t i = 0; i < inner; ++i) {
      const float value = (x[i] - mean) * factor + offset;
      y[i] = value < floor ? floor : value;
    }
  } else {
    for (int64_t i = 0; i < inner; ++i, x += block, y += block) {
#pragma omp simd
      for (int64_t lane = 0; lane < block; ++lane) {
        const float value = (x[lane] - row.mean[lane]) * row.factor[lane] + row.offset[lane];
        y[lane] = value < row.floor ? row.floor : value;
      }
    }
  }
}

// Of each lane the sums of g and of g (x - mean), where g is dy, or 0 where y is at the floor.
SPARKNET_WIDE void sum_gradients(const float* x, const float* dy, int64_t inner, int64_t block, RowNormalisation row,
                                 float* sums, float* products) {
  if (block == 1) {
    const float mean = *row.mean, factor = *row.factor, offset = *row.offset, floor = row.floor;
    float sum = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : sum, product)
    for (int64_t i = 0; i < inner; ++i) {
      const float centred = x[i] - mean;
      const float g = centred * factor + offset <= floor ? 0.0f : dy[i];
      sum += g;
      product += g * centred;
    }
    *sums = sum;
    *products = product;
    return;
  }
  std::fill_n(sums, block, 0.0f);
  std::fill_n(products, block, 0.0f);
  for (int64_t i = 0; i < inner; ++i, x += block, dy += block) {
#pragma omp simd
    for (int64_t lane = 0; lane < block; ++lane) {
      const float centred = x[lane] - row.mean[lane];
      const float g = centred * row.factor[lane] + row.offset[lane] <= row.floor ? 0.0f : dy[lane];
      sums[lane] += g;
      products[lane] += g * centred;
    }
  }
}

// dx = factor (g - share - (x - mean) slope), an array of `share` and `slope` for each lane.
SPARKNET_WIDE void propagate(const float* x, const float* dy, float* dx, int64_t inner, int64_t block,
                             RowNormalisation row, const float* share, const float* slope) {
  if (block == 1) {
    const float mean = *row.mean, factor = *row.factor, offset = *row.offset, floor = row.floor;
    const float part = *share, steep = *slope;
#pragma omp simd
    for (int64_t i = 0; i < inner; ++i) {
      const float centred = x[i] - mean;
      const float g = centred * factor + offset <= floor ? 0.0f : dy[i];
      dx[i] = factor * (g - part - centred * steep);
    }
    return;
  }
  for (int64_t i = 0; i < inner; ++i, x += block, dy += block, dx += block) {
#pragma omp simd
    for (int64_t lane = 0; lane < block; ++lane) {
      const float centred = x[lane] - row.mean[lane];
      const float g = centred * row.factor[lane] + row.offset[lane] <= row.floor ? 0.0f : dy[lane];
      dx[lane] = row.factor[lane] * (g - share[lane] - centred * slope[lane]);
    }
  }
}

}  // namespace

// Batch normalisation without scale and shift, which are a Scale layer's (Ioffe and Szegedy, "Batch normalization:
// accelerating deep network training by reducing internal covariate shift", ICML 2015): y = (x - mean) / sqrt(variance
// + eps) for each channel (axis 1).
//
// As in Caffe: the parameters are the sums of means and of variances that decay by moving_average_fraction, and the sum
// of the weights in both, by which they are divided when used; while that is 0 mean and variance are 0. In TRAIN the
// batch's own mean and (biased) variance normalise, and each forward pass adds them (the variance unbiased) to the
// sums; use_global_stats, which defaults to the phase being TEST, takes the sums instead and leaves them alone.
//
// A Scale layer that follows in place, and a ReLU after that, are done in the same loops, forward and backward.
// Backward keeps x, which costs no copy: whoever overwrites the bottom in place leaves x its memory.
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
    input_.reshape(shape);
  }

  Absorbs absorb(const Layer& next) override {
    if (next.param().text("type") == "Scale" && scale_ == nullptr && !relu_) {
      if (!scales_channels(next, channels_, input_.axes())) return Absorbs::kNothing;
      scale_ = &next;
      return Absorbs::kBoth;
    }
    relu_ |= rectifies(next);
    return rectifies(next) ? Absorbs::kBoth : Absorbs::kNothing;
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    scaled_ = fused && scale_ != nullptr;
    if (bottom[0]->count() == 0) return;
    const ChannelView view = view_of(bottom[0]->data);
    // Before the top is overwritten, which may be the bottom.
    const float* x = bottom[0]->data.read_as(view.layout);
    const bool keeps = needs_backward && (!use_global_ || fused);
    if (keeps) input_.copy(bottom[0]->data);

    std::vector<float> variance;
    if (use_global_) {
      const float weight = params[2]->data.read()[0];
      const float factor = weight == 0.0f ? 0.0f : 1.0f / weight;
      by_.mean = padded_channels(view, params[0]->data.read(), channels_);
      variance = padded_channels(view, params[1]->data.read(), channels_);
      for (float& value : by_.mean) value *= factor;
      for (float& value : variance) value *= factor;
    } else {
      ChannelStatistics batch = channel_statistics(view, x);
      if (!again) update_statistics(batch.mean, batch.variance, bottom[0]->count() / channels_);
      by_.mean = std::move(batch.mean);
      variance = std::move(batch.variance);
    }
    by_.factor.resize(view.channels());
    for (int64_t channel = 0; channel < view.channels(); ++channel) {
      by_.factor[channel] = 1.0f / std::sqrt(variance[channel] + eps_);
    }
    inverse_deviation_ = by_.factor;
    by_.offset.assign(view.channels(), 0.0f);
    by_.floor = fused && relu_ ? 0.0f : -std::numeric_limits<float>::infinity();
    if (scaled_) {
      const float* factors = scale_->params[0]->data.read();
      for (int64_t channel = 0; channel < channels_; ++channel) by_.factor[channel] *= factors[channel];
      if (has_offset()) by_.offset = padded_channels(view, scale_->params[1]->data.read(), channels_);
    }

    float* y = top[0]->data.overwrite_as(view.layout);
    for_each_row(view, [&](int64_t first, int64_t channel) {
      normalise(x + first, y + first, view.inner, view.block, row_of(channel));
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (bottom[0]->count() == 0) return;
    const bool keeps = !use_global_ || fused;
    const ChannelView view = view_of(keeps ? input_ : top[0]->diff);
    if (static_cast<int64_t>(by_.factor.size()) < channels_ || (keeps && input_.is_zero())) {
      fail(ErrorKind::kState, "backward needs a forward pass before it");
    }
    for (auto* each : {&by_.mean, &by_.factor, &by_.offset}) each->resize(view.channels(), 0.0f);
    inverse_deviation_.resize(view.channels(), 0.0f);
    const float* dy = top[0]->diff.read_as(view.layout);
    if (!keeps) {
      if (!propagate_down[0]) return;
      float* dx = bottom[0]->diff.overwrite_as(view.layout);
      for_each_value(
          view, [=, factor = by_.factor.data()](int64_t at, int64_t channel) { dx[at] = dy[at] * factor[channel]; });
      return;
    }

    const float* x = input_.read_as(view.layout);
    std::vector<float> row_sums(view.rows() * view.block), row_products(view.rows() * view.block);
    for_each_row(view, [&](int64_t first, int64_t channel) {
      const int64_t at = first / std::max<int64_t>(view.inner, 1);
      sum_gradients(x + first, dy + first, view.inner, view.block, row_of(channel), &row_sums[at], &row_products[at]);
    });
    std::vector<float> sums = total(view, row_sums), products = total(view, row_products);
    // dy / d factor is x normalised.
    for (int64_t channel = 0; channel < view.channels(); ++channel) products[channel] *= inverse_deviation_[channel];
    if (scaled_) {
      if (scale_->param_gradient[0]) add(products, scale_->params[0]->diff.write());
      if (has_offset() && scale_->param_gradient[1]) add(sums, scale_->params[1]->diff.write());
    }
    if (!propagate_down[0]) return;
    // Both mean and variance depend on every value of the channel; global ones on none.
    const float share = use_global_ ? 0.0f : static_cast<float>(channels_) / static_cast<float>(bottom[0]->count());
    for (int64_t channel = 0; channel < view.channels(); ++channel) {
      sums[channel] *= share;
      products[channel] *= share * inverse_deviation_[channel];
    }
    float* dx = bottom[0]->diff.overwrite_as(view.layout);
    for_each_row(view, [&](int64_t first, int64_t channel) {
      propagate(x + first, dy + first, dx + first, view.inner, view.block, row_of(channel), &sums[channel],
                &products[channel]);
    });
  }

  bool keeps_bottom() const override { return false; }
  bool keeps_top() const override { return false; }
  void forget() override { input_.drop(); }

 private:
  // A bottom of one axis has a single channel.
  static int64_t channels_of(const Shape& shape) { return shape.size() == 1 ? 1 : shape[1]; }

  static ChannelView view_of(const Tensor& tensor) {
    return tensor.axes() == 1 ? ChannelView::of_axes(tensor.shape(), 1, 1) : ChannelView::of_axis(tensor, 1);
  }

  RowNormalisation row_of(int64_t channel) const {
    return {&by_.mean[channel], &by_.factor[channel], &by_.offset[channel], by_.floor};
  }

  bool has_offset() const { return scale_->params.size() > 1; }

  void add(const std::vector<float>& values, float* sums) const {
    for (int64_t channel = 0; channel < channels_; ++channel) sums[channel] += values[channel];
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
  // Absorbed layers.
  const Layer* scale_ = nullptr;
  bool relu_ = false;
  // Of the last forward pass.
  bool scaled_ = false;
  Normalisation by_;
  std::vector<float> inverse_deviation_;
  Tensor input_;
};

REGISTER_LAYER(BatchNormLayer, LayerSpec("BatchNorm", "zero mean and unit variance for each channel")
                                   .messages({"batch_norm_param"})
                                   .in_place()
                                   .most(3));

}  // namespace sparknet
