#include <cmath>
#include <string>

#include "core/channels.h"
#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// Batch normalisation with its scale and shift in one (Ioffe and Szegedy, ICML 2015): y = slope (x - mean) /
// sqrt(variance + eps) + bias for each channel (axis 1). Forks of Caffe have layers of this name whose parameters
// differ in number and meaning; the fields tell which:
//
// PSPNet's (Zhao et al., CVPR 2017; github.com/yjxiong/caffe) takes slope_filler, bias_filler, momentum, eps, frozen.
// Parameters: slope, bias, running mean and variance, each 1 × C. In TRAIN the batch's own mean and (biased) variance
// normalise, and the running ones become momentum times themselves plus 1 - momentum times the batch's; TEST and
// `frozen` take the running ones, and `frozen` learns nothing. `engine` chose among implementations and is without
// effect.
//
// PSPNet's of its first files (github.com/hszhao/PSPNet) takes scale_filler, shift_filler, moving_average, decay,
// var_eps. The same, but that each parameter is 1 × C × 1 × 1, decay is 1 - momentum, and TEST takes the running
// statistics with moving_average only, else the batch's.
//
// SegNet's (Badrinarayanan et al., PAMI 2017; github.com/alexgkendall/caffe-segnet) takes scale_filler, shift_filler,
// bn_mode. Parameters: scale and shift, each 1 × C × 1 × 1. LEARN normalises by the batch's own statistics, in TEST as
// well, with eps 1e-9; INFERENCE is scale x + shift, where a script has worked the statistics into the two. Further
// tops with the batch's statistics, of which no published model has any, are refused.
//
// A factor that no filler is given for starts at 1; the forks start it at 0, where nothing passes.
class BNLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    const Message& fields = param().message("bn_param");
    const Shape& shape = bottom[0]->shape();
    if (shape.size() < 2) fail(ErrorKind::kShape, "the bottom must have a channel axis, but it is ", to_string(shape));
    channels_ = shape[1];
    const std::string pspnet = given(fields, {"slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine"});
    const std::string older = given(fields, {"moving_average", "decay", "var_eps"});
    const std::string segnet =
        older.empty() ? given(fields, {"bn_mode", "scale_filler", "shift_filler"}) : given(fields, {"bn_mode"});
    const int kinds =
        static_cast<int>(!pspnet.empty()) + static_cast<int>(!older.empty()) + static_cast<int>(!segnet.empty());
    if (kinds != 1) {
      fail(ErrorKind::kField, kinds == 0 ? "the fields do not tell" : "the fields contradict each other about",
           " which BN this is: PSPNet's takes slope_filler, bias_filler, momentum, eps and frozen, that of its first ",
           "files scale_filler, shift_filler, moving_average, decay and var_eps, SegNet's scale_filler, shift_filler ",
           "and bn_mode");
    }
    if (!pspnet.empty()) setup_pspnet(fields);
    if (!older.empty()) setup_older(fields);
    if (!segnet.empty()) setup_segnet(fields);
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.size() < 2 || shape[1] != channels_) {
      fail(ErrorKind::kShape, "the parameters are of ", channels_, " channels, the bottom is ", to_string(shape));
    }
    if (top[0] != bottom[0]) top[0]->reshape(shape);
    normalised_.reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (bottom[0]->count() == 0) return;
    const ChannelView view = ChannelView::of_axis(bottom[0]->data, 1);
    const float* x = bottom[0]->data.read_as(view.layout);
    ChannelStatistics used;
    if (source_ == Source::kBatch) {
      used = channel_statistics(view, x);
      if (params.size() > 2 && phase() == Phase::kTrain && !again) update_running(used);
    } else {
      used = fixed_statistics(view);
    }
    inverse_deviation_.assign(view.channels(), 0.0f);
    for (int64_t channel = 0; channel < channels_; ++channel) {
      inverse_deviation_[channel] = 1.0f / std::sqrt(used.variance[channel] + eps_);
    }
    const std::vector<float> slope = padded_channels(view, params[0]->data.read(), channels_);
    const std::vector<float> bias = padded_channels(view, params[1]->data.read(), channels_);
    // Backward needs it, and layers that work in place may overwrite bottom and top.
    float* kept = normalised_.overwrite_as(view.layout);
    float* y = top[0]->data.overwrite_as(view.layout);
    for_each_value(view, [=, mean = used.mean.data(), factor = inverse_deviation_.data(), slope = slope.data(),
                          bias = bias.data()](int64_t at, int64_t channel) {
      const float value = (x[at] - mean[channel]) * factor[channel];
      kept[at] = value;
      y[at] = slope[channel] * value + bias[channel];
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (bottom[0]->count() == 0) return;
    const ChannelView view = ChannelView::of_axis(normalised_, 1);
    if (static_cast<int64_t>(inverse_deviation_.size()) < channels_) {
      fail(ErrorKind::kState, "backward needs a forward pass before it");
    }
    inverse_deviation_.resize(view.channels(), 0.0f);
    const float* dy = top[0]->diff.read_as(view.layout);
    const float* kept = normalised_.read_as(view.layout);
    std::vector<float> sums = channel_sums(view, [=](int64_t at, int64_t) { return dy[at]; });
    std::vector<float> products = channel_sums(view, [=](int64_t at, int64_t) { return dy[at] * kept[at]; });
    add(products, 0);
    add(sums, 1);
    if (!propagate_down[0]) return;
    // Where mean and variance are the batch's they depend on every value of the channel:
    // dx = slope (dy - mean(dy) - x' mean(dy x')) / sqrt(variance + eps), x' being what was normalised.
    const float share =
        source_ == Source::kBatch ? static_cast<float>(channels_) / static_cast<float>(bottom[0]->count()) : 0.0f;
    for (float& value : sums) value *= share;
    for (float& value : products) value *= share;
    std::vector<float> factor = padded_channels(view, params[0]->data.read(), channels_);
    for (size_t channel = 0; channel < factor.size(); ++channel) factor[channel] *= inverse_deviation_[channel];
    float* dx = bottom[0]->diff.overwrite_as(view.layout);
    for_each_value(
        view, [=, mean = sums.data(), product = products.data(), factor = factor.data()](int64_t at, int64_t channel) {
          dx[at] = (dy[at] - mean[channel] - kept[at] * product[channel]) * factor[channel];
        });
  }

 private:
  // Where the mean and the variance come from.
  enum class Source { kBatch, kRunning, kNone };

  // The first of the fields that is written.
  static std::string given(const Message& fields, std::initializer_list<const char*> names) {
    for (const char* name : names) {
      if (fields.has(name)) return name;
    }
    return "";
  }

  // The factor and the summand.
  void add_params(const Message& fields, const Shape& shape, const char* factor, const char* summand) {
    Message filler = fields.message(factor);
    if (!fields.has(factor)) filler.field("value").reals = {1.0};
    add_param(shape, filler);
    add_param(shape, fields.message(summand));
  }

  void set_numbers(const Message& fields, const char* eps, const char* share) {
    if (!(fields.real(eps) >= 0.0)) fail(ErrorKind::kField, eps, " must not be below 0");
    if (!(fields.real(share) >= 0.0 && fields.real(share) <= 1.0)) {
      fail(ErrorKind::kField, share, " must be from 0 to 1, not ", fields.real(share));
    }
    eps_ = static_cast<float>(fields.real(eps));
  }

  void setup_pspnet(const Message& fields) {
    frozen_ = fields.flag("frozen");
    source_ = frozen_ || phase() == Phase::kTest ? Source::kRunning : Source::kBatch;
    set_numbers(fields, "eps", "momentum");
    momentum_ = fields.real("momentum");
    add_params(fields, {1, channels_}, "slope_filler", "bias_filler");
    Message filler = fields.message("slope_filler").empty_like();  // constant 0
    add_param({1, channels_}, filler);
    if (frozen_) filler.field("value").reals = {1.0};
    add_param({1, channels_}, filler);
    // No solver may touch statistics, nor anything that is frozen.
    param_gradient = {!frozen_, !frozen_, false, false};
  }

  void setup_older(const Message& fields) {
    source_ = phase() == Phase::kTest && fields.flag("moving_average") ? Source::kRunning : Source::kBatch;
    set_numbers(fields, "var_eps", "decay");
    momentum_ = 1.0 - fields.real("decay");
    add_params(fields, {1, channels_, 1, 1}, "scale_filler", "shift_filler");
    const Message zero = fields.message("scale_filler").empty_like();
    add_param({1, channels_, 1, 1}, zero);
    add_param({1, channels_, 1, 1}, zero);
    param_gradient = {true, true, false, false};
  }

  void setup_segnet(const Message& fields) {
    eps_ = 1e-9f;
    source_ = fields.text("bn_mode") == "INFERENCE" ? Source::kNone : Source::kBatch;
    add_params(fields, {1, channels_, 1, 1}, "scale_filler", "shift_filler");
  }

  ChannelStatistics fixed_statistics(const ChannelView& view) {
    if (source_ == Source::kRunning) {
      return {padded_channels(view, params[2]->data.read(), channels_),
              padded_channels(view, params[3]->data.read(), channels_)};
    }
    // Which leave x as it is.
    return {std::vector<float>(view.channels(), 0.0f), std::vector<float>(view.channels(), 1.0f - eps_)};
  }

  void update_running(const ChannelStatistics& batch) {
    const auto old_share = static_cast<float>(momentum_), share = static_cast<float>(1.0 - momentum_);
    float* mean = params[2]->data.write();
    float* variance = params[3]->data.write();
    for (int64_t channel = 0; channel < channels_; ++channel) {
      mean[channel] = old_share * mean[channel] + share * batch.mean[channel];
      variance[channel] = old_share * variance[channel] + share * batch.variance[channel];
    }
  }

  void add(const std::vector<float>& sums, int index) {
    // force_backward asks for gradients of what is frozen, too.
    if (frozen_ || !param_gradient[index]) return;
    float* to = params[index]->diff.write();
    for (int64_t channel = 0; channel < channels_; ++channel) to[channel] += sums[channel];
  }

  Source source_ = Source::kBatch;
  bool frozen_ = false;
  double momentum_ = 0.9;  // how much of the running statistics stays
  float eps_ = 1e-5f;
  int64_t channels_ = 0;
  std::vector<float> inverse_deviation_;  // of the last forward pass
  Tensor normalised_;                     // (x - mean) / sqrt(variance + eps) of the last forward pass
};

REGISTER_LAYER(BNLayer, LayerSpec("BN", "batch normalisation with scale and shift, PSPNet's or SegNet's")
                            .messages({"bn_param"})
                            .in_place()
                            .most(4));

}  // namespace sparknet
