#include <algorithm>
#include <vector>

#include "core/loss.h"
#include "core/parallel.h"
#include "core/smooth_l1.h"

namespace sparknet {

// What SmoothL1Loss and SmoothL1LossOHEM have in common: predictions, targets and, as further bottoms, weights of the
// differences and weights of the losses, all of as many values.
class SmoothL1Base : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.empty()) fail(ErrorKind::kShape, "`", bottom[0]->name, "` has no rows: it is a scalar");
    for (size_t i = 1; i < bottom.size(); ++i) {
      const Shape& other = bottom[i]->shape();
      // As in the forks N × C and N × C × 1 × 1 fit.
      if (!other.empty() && other[0] == shape[0] && bottom[i]->count() == bottom[0]->count()) continue;
      throw Error(ErrorKind::kShape,
                  join("all bottoms must have as many rows and values, but `", bottom[0]->name, "` is ",
                       to_string(shape), " and `", bottom[i]->name, "` is ", to_string(other)),
                  static_cast<int>(i));
    }
    top[0]->reshape({});
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    const auto weight = static_cast<float>(*top[0]->diff.read() / normalizer(bottom));
    const auto [a, b, inner, outer] = values(bottom);
    for (int which = 0; which < static_cast<int>(bottom.size()); ++which) {
      if (!propagate_down[which]) continue;
      if (which > 1) {
        throw Error(ErrorKind::kState,
                    join("there is no gradient with respect to the weights, but `", bottom[which]->name,
                         "` asks for one; write propagate_down into the layer, false for it"),
                    which);
      }
      const float signed_weight = which == 0 ? weight : -weight;
      float* d = bottom[which]->diff.overwrite();
      parallel_for(bottom[0]->count(), kElementGrain,
                   [=, a = a, b = b, inner = inner, outer = outer](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       const float factor = inner == nullptr ? 1.0f : inner[i];
                       const float slope = factor * smooth_l1_slope(factor * (a[i] - b[i]), sigma_squared_);
                       d[i] = signed_weight * slope * (outer == nullptr ? 1.0f : outer[i]);
                     }
                   });
    }
  }

  bool allows_gradient(int index) const override { return index < 2; }

 protected:
  struct Values {
    const float *a, *b, *inner, *outer;  // the latter null where there are no such weights
  };

  static Values values(const Blobs& bottom) {
    const auto at = [&](size_t i) { return i < bottom.size() ? bottom[i]->data.read() : nullptr; };
    return {at(0), at(1), at(2), at(3)};
  }

  // Of value number `i`.
  float loss(const Values& v, int64_t i) const {
    const float error = smooth_l1((v.inner == nullptr ? 1.0f : v.inner[i]) * (v.a[i] - v.b[i]), sigma_squared_);
    return error * (v.outer == nullptr ? 1.0f : v.outer[i]);
  }

  // What the sum of all losses is divided by.
  virtual double normalizer(const Blobs& bottom) const = 0;

  void sum_losses(const Blobs& bottom, Blob& top) const {
    const Values v = values(bottom);
    double sum = 0.0;
    for (int64_t i = 0; i < bottom[0]->count(); ++i) sum += loss(v, i);
    *top.data.overwrite() = static_cast<float>(sum / normalizer(bottom));
  }

  float sigma_squared_ = 1.0f;
};

// sum w_out smooth_l1(w_in (prediction - target)) / N, N being the number of rows (core/smooth_l1.h). The third bottom
// is w_in, the fourth w_out; 1 where they are absent. Fast R-CNN's fork takes both or none, SSD's only w_in.
class SmoothL1LossLayer : public SmoothL1Base {
 public:
  using SmoothL1Base::SmoothL1Base;

  void setup(const Blobs&, const Blobs&) override {
    const double sigma = param().message("smooth_l1_loss_param").real("sigma");
    if (!(sigma > 0.0)) fail(ErrorKind::kField, "sigma must be above 0, not ", sigma);
    sigma_squared_ = static_cast<float>(sigma * sigma);
  }

  void forward(const Blobs& bottom, const Blobs& top) override { sum_losses(bottom, *top[0]); }

 protected:
  double normalizer(const Blobs& bottom) const override {
    return static_cast<double>(std::max<int64_t>(bottom[0]->shape()[0], 1));
  }
};

// The same with sigma 1, for online hard example mining (Shrivastava et al., "Training region-based object detectors
// with online hard example mining", CVPR 2016) as R-FCN's fork of Caffe has it (github.com/daijifeng001/caffe-rfcn):
// the sum is divided as loss_param says, where each place of each row is an item, and the second top is the loss of
// each, N × 1 × H × W, without weight in the objective.
class SmoothL1LossOHEMLayer : public SmoothL1Base {
 public:
  SmoothL1LossOHEMLayer(const Message& param, Phase phase) : SmoothL1Base(param, phase), rule_(param, "VALID") {}

  void reshape(const Blobs& bottom, const Blobs& top) override {
    SmoothL1Base::reshape(bottom, top);
    const Shape& shape = bottom[0]->shape();
    if (shape.size() > 4) {
      fail(ErrorKind::kShape, "`", bottom[0]->name, "` must have at most 4 axes, not ", to_string(shape));
    }
    Shape places = {shape[0], 1, 1, 1};
    std::copy(shape.begin() + std::min<size_t>(shape.size(), 2), shape.end(), places.begin() + 2);
    inner_ = places[2] * places[3];
    if (top.size() > 1) top[1]->reshape(places);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    sum_losses(bottom, *top[0]);
    if (top.size() < 2) return;
    const Values v = values(bottom);
    float* losses = top[1]->data.overwrite();
    const int64_t places = top[1]->count(), channels = places == 0 ? 0 : bottom[0]->count() / places;
    for (int64_t i = 0; i < places; ++i) {
      losses[i] = 0.0f;
      for (int64_t c = 0; c < channels; ++c) losses[i] += loss(v, (i / inner_ * channels + c) * inner_ + i % inner_);
    }
  }

 protected:
  double normalizer(const Blobs& bottom) const override {
    const int64_t rows = bottom[0]->shape()[0];
    return rule_.normalizer(rows * inner_, rows, rows * inner_);
  }

 private:
  const LossRule rule_;
  int64_t inner_ = 1;  // places of a row
};

REGISTER_LAYER(SmoothL1LossLayer, LayerSpec("SmoothL1Loss", "squares of small differences, sizes of large ones")
                                      .messages({"smooth_l1_loss_param", "loss_param"})
                                      .positional({"sigma"})
                                      .named({"predictions", "targets", "inside weights", "outside weights"})
                                      .bottoms(2, 4)
                                      .reads_bottom()
                                      .loss());

REGISTER_LAYER(SmoothL1LossOHEMLayer, LayerSpec("SmoothL1LossOHEM", "SmoothL1Loss, with the loss of each row as a top")
                                          .messages({"loss_param"})
                                          .named({"predictions", "targets", "weights"})
                                          .bottoms(2, 3)
                                          .tops(1, 2)
                                          .reads_bottom()
                                          .loss());

}  // namespace sparknet
