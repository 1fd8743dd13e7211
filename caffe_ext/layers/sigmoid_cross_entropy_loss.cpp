#include <algorithm>
#include <cmath>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/layer.h"
#include "core/loss.h"
#include "core/parallel.h"

namespace sparknet {

// The cross entropy of sigmoid(scores) with targets in [0, 1], item by item, computed so that no exponential overflows.
// As in Caffe it is divided by the number of rows unless `normalization` says otherwise, and ignore_label is compared
// with the target truncated to an integer: ignore_label 0 ignores all targets in [0, 1).
class SigmoidCrossEntropyLossLayer : public Layer {
 public:
  SigmoidCrossEntropyLossLayer(const Message& param, Phase phase) : Layer(param, phase), rule_(param, "BATCH_SIZE") {}

  void reshape(const Blobs& bottom, const Blobs& top) override {
    check_same_rows(bottom);
    if (bottom[0]->count() != bottom[1]->count()) {
      throw Error(
          ErrorKind::kShape,
          join("both bottoms must have as many elements, but `", bottom[0]->name, "` is ",
               to_string(bottom[0]->shape()), " and `", bottom[1]->name, "` is ", to_string(bottom[1]->shape())),
          1);
    }
    top[0]->reshape({});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float *x = bottom[0]->data.read(), *t = bottom[1]->data.read();
    double loss = 0.0;
    valid_ = 0;
    for (int64_t i = 0; i < bottom[0]->count(); ++i) {
      if (rule_.ignores(to_label(t[i]))) continue;
      loss += std::log1p(std::exp(-std::fabs(x[i]))) + x[i] * ((x[i] >= 0.0f ? 1.0f : 0.0f) - t[i]);
      ++valid_;
    }
    *top[0]->data.overwrite() = static_cast<float>(loss / normalizer(bottom));
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[1]) fail_label_gradient(bottom);
    if (!propagate_down[0]) return;
    const float *x = bottom[0]->data.read(), *t = bottom[1]->data.read();
    const float weight = static_cast<float>(*top[0]->diff.read() / normalizer(bottom));
    float* dx = bottom[0]->diff.overwrite();
    parallel_for(bottom[0]->count(), kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float p = sigmoid(x[i]);
        dx[i] = rule_.ignores(to_label(t[i])) ? 0.0f : weight * (p - t[i]);
      }
    });
  }

  bool allows_gradient(int index) const override { return index == 0; }

 private:
  double normalizer(const Blobs& bottom) const {
    return rule_.normalizer(bottom[0]->count(), bottom[0]->shape()[0], valid_);
  }

  const LossRule rule_;
  int64_t valid_ = 0;
};

REGISTER_LAYER(SigmoidCrossEntropyLossLayer,
               LayerSpec("SigmoidCrossEntropyLoss", "the cross entropy of sigmoid(scores) and targets")
                   .messages({"loss_param"})
                   .named({"scores", "targets"})
                   .bottoms(2, 2)
                   .reads_bottom()
                   .loss());

}  // namespace sparknet
