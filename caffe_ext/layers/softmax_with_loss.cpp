#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "core/layer.h"
#include "core/loss.h"
#include "core/softmax.h"

namespace sparknet {

// The mean over all labelled places of -log(probability of the true class), the probabilities being the softmax of the
// scores along `axis`. As in Caffe a probability counts as at least FLT_MIN (a loss of 87.34), labels are truncated to
// integers, and the number of rows of scores and labels must agree even where `axis` is 0. A second top with the
// probabilities, which Caffe 1.0 declares but cannot build, is refused.
//
// With weight_by_label_freqs (SegNet's fork, github.com/alexgkendall/caffe-segnet) each place counts as much as
// class_weighting says of its true class, or, where that is not given, 1 / the number of the class's labels in the
// batch; what the sum is divided by stays the same.
class SoftmaxWithLossLayer : public Layer {
 public:
  SoftmaxWithLossLayer(const Message& param, Phase phase) : Layer(param, phase), rule_(param, "VALID") {}

  void reshape(const Blobs& bottom, const Blobs& top) override {
    check_same_rows(bottom);
    const Shape& shape = bottom[0]->shape();
    const int axis = canonical_axis(shape, param().message("softmax_param").integer("axis"));
    view_ = {count(shape, 0, axis), shape[axis], count(shape, axis + 1, static_cast<int>(shape.size()))};
    check_labels_shape(*bottom[0], *bottom[1], axis);
    set_weights();
    probability_.reshape(shape);
    top[0]->reshape({});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    float* probability = probability_.overwrite();
    softmax(bottom[0]->data.read(), probability, view_);
    const float* labels = bottom[1]->data.read();
    if (by_frequency_) count_labels(labels);
    double loss = 0.0;
    valid_ = 0;
    for (int64_t i = 0; i < view_.outer * view_.inner; ++i) {
      const int64_t label = to_label(labels[i]);
      if (rule_.ignores(label)) continue;
      check_label(label, labels[i], i, view_.channels);
      loss += weight_of(label) * item_loss(i, label);
      ++valid_;
    }
    *top[0]->data.overwrite() = static_cast<float>(loss / normalizer());
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[1]) fail_label_gradient(bottom);
    if (!propagate_down[0]) return;
    const float weight = static_cast<float>(*top[0]->diff.read() / normalizer());
    const float* probability = probability_.read();
    const float* labels = bottom[1]->data.read();
    float* dx = bottom[0]->diff.overwrite();
    parallel_for(bottom[0]->count(), kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) dx[i] = weight * probability[i];
    });
    for (int64_t i = 0; i < view_.outer * view_.inner; ++i) {
      const int64_t label = to_label(labels[i]);
      if (rule_.ignores(label)) {
        for (int64_t c = 0; c < view_.channels; ++c) dx[at(i, c)] = 0.0f;
      } else {
        check_label(label, labels[i], i, view_.channels);  // somebody may have written others since
        dx[at(i, label)] = weight * (probability[at(i, label)] - 1.0f);
        if (weights_.empty()) continue;
        for (int64_t c = 0; c < view_.channels; ++c) dx[at(i, c)] *= static_cast<float>(weight_of(label));
      }
    }
  }

  bool allows_gradient(int index) const override { return index == 0; }

 protected:
  const LossRule& rule() const { return rule_; }
  const Tensor& probability() const { return probability_; }

  // Of label number `i`.
  double item_loss(int64_t i, int64_t label) const {
    const float p = probability_.read()[at(i, label)];
    // Not std::max, which would turn NaN into FLT_MIN.
    return -std::log(p < FLT_MIN ? FLT_MIN : p);
  }

 private:
  void set_weights() {
    const Message& fields = param().message("loss_param");
    const auto& given = fields.reals("class_weighting");
    const bool weighted = fields.flag("weight_by_label_freqs");
    if (!given.empty() && !weighted) {
      fail(ErrorKind::kField, "class_weighting counts with weight_by_label_freqs: true only");
    }
    if (!given.empty() && static_cast<int64_t>(given.size()) != view_.channels) {
      fail(ErrorKind::kField, "class_weighting has ", given.size(), " values, but there are ", view_.channels,
           " classes");
    }
    by_frequency_ = weighted && given.empty();
    if (!by_frequency_ || static_cast<int64_t>(weights_.size()) != view_.channels) weights_ = given;
  }

  void count_labels(const float* labels) {
    weights_.assign(view_.channels, 0.0);
    for (int64_t i = 0; i < view_.outer * view_.inner; ++i) {
      const int64_t label = to_label(labels[i]);
      if (label >= 0 && label < view_.channels) ++weights_[label];
    }
    for (double& weight : weights_) weight = weight == 0.0 ? 0.0 : 1.0 / weight;
  }

  double weight_of(int64_t label) const { return weights_.empty() ? 1.0 : weights_[label]; }

  // Where the score of a class for label number `i` is.
  int64_t at(int64_t i, int64_t label) const {
    return (i / view_.inner * view_.channels + label) * view_.inner + i % view_.inner;
  }

  double normalizer() const { return rule_.normalizer(view_.outer * view_.inner, view_.outer, valid_); }

  const LossRule rule_;
  SoftmaxView view_{};
  Tensor probability_;
  int64_t valid_ = 0;
  bool by_frequency_ = false;
  std::vector<double> weights_;  // of the classes; none: 1
};

// The same for online hard example mining, as R-FCN's fork of Caffe has it (github.com/daijifeng001/caffe-rfcn): the
// second top is the probabilities, the third the loss of each label, 0 for ignored ones; both have 4 axes, as all blobs
// once had, and no weight in the objective.
class SoftmaxWithLossOHEMLayer : public SoftmaxWithLossLayer {
 public:
  using SoftmaxWithLossLayer::SoftmaxWithLossLayer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    SoftmaxWithLossLayer::reshape(bottom, top);
    for (size_t i = 1; i < top.size(); ++i) {
      Shape shape = bottom[i - 1]->shape();
      if (shape.size() > 4) {
        fail(ErrorKind::kShape, "`", bottom[i - 1]->name, "` must have at most 4 axes, not ", to_string(shape));
      }
      shape.resize(4, 1);
      top[i]->reshape(shape);
    }
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    SoftmaxWithLossLayer::forward(bottom, top);
    if (top.size() > 1) {
      const float* from = probability().read();
      std::copy(from, from + probability().count(), top[1]->data.overwrite());
    }
    if (top.size() > 2) {
      const float* labels = bottom[1]->data.read();
      float* losses = top[2]->data.overwrite();
      for (int64_t i = 0; i < bottom[1]->count(); ++i) {
        const int64_t label = to_label(labels[i]);
        losses[i] = rule().ignores(label) ? 0.0f : static_cast<float>(item_loss(i, label));
      }
    }
  }
};

REGISTER_LAYER(SoftmaxWithLossLayer, LayerSpec("SoftmaxWithLoss", "the logistic loss of the softmax of scores")
                                         .messages({"softmax_param", "loss_param"})
                                         .extensions({"weight_by_label_freqs", "class_weighting"})
                                         .named({"scores", "labels"})
                                         .bottoms(2, 2)
                                         .loss());

REGISTER_LAYER(SoftmaxWithLossOHEMLayer,
               LayerSpec("SoftmaxWithLossOHEM",
                         "SoftmaxWithLoss, with probabilities and the loss of each label as tops")
                   .messages({"softmax_param", "loss_param"})
                   .named({"scores", "labels"})
                   .bottoms(2, 2)
                   .tops(1, 3)
                   .loss());

}  // namespace sparknet
