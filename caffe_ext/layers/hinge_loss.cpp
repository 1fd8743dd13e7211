#include <algorithm>
#include <cmath>

#include "core/layer.h"
#include "core/loss.h"

namespace sparknet {

// One against all: the margin of the true class is max(0, 1 - score), that of every other class max(0, 1 + score). The
// loss is the sum of the margins (`norm` L1) or of their squares (L2), divided by the number of rows.
class HingeLossLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    squared_ = param().message("hinge_loss_param").text("norm") == "L2";
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    check_same_rows(bottom);
    rows_ = bottom[0]->shape()[0];
    classes_ = rows_ == 0 ? 0 : bottom[0]->count() / rows_;
    check_one_label_a_row(bottom);
    top[0]->reshape({});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    double sum = 0.0;
    for_scores(bottom, [&](int64_t, float, float margin) {
      sum += squared_ ? static_cast<double>(margin) * margin : static_cast<double>(margin);
    });
    *top[0]->data.overwrite() = static_cast<float>(sum / divisor());
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[1]) fail_label_gradient(bottom);
    if (!propagate_down[0]) return;
    const float weight = static_cast<float>(*top[0]->diff.read() / divisor());
    float* dx = bottom[0]->diff.overwrite();
    for_scores(bottom, [&](int64_t at, float sign, float margin) {
      const float slope = squared_ ? 2.0f * margin : margin > 0.0f ? 1.0f : 0.0f;
      dx[at] = weight * sign * slope;
    });
  }

  bool allows_gradient(int index) const override { return index == 0; }

 private:
  double divisor() const { return static_cast<double>(std::max<int64_t>(rows_, 1)); }

  // Calls body(place, sign, margin) for each score; the margin grows by `sign` with it.
  template <typename Body>
  void for_scores(const Blobs& bottom, const Body& body) const {
    const float *x = bottom[0]->data.read(), *labels = bottom[1]->data.read();
    for (int64_t row = 0; row < rows_; ++row) {
      const int64_t label = to_label(labels[row]);
      check_label(label, labels[row], row, classes_);
      for (int64_t c = 0; c < classes_; ++c) {
        const int64_t at = row * classes_ + c;
        const float sign = c == label ? -1.0f : 1.0f;
        const float reach = 1.0f + sign * x[at];
        body(at, sign, reach < 0.0f ? 0.0f : reach);  // not std::max, which would hide NaN
      }
    }
  }

  bool squared_ = false;
  int64_t rows_ = 0, classes_ = 0;
};

REGISTER_LAYER(HingeLossLayer, LayerSpec("HingeLoss", "one-against-all hinge loss of scores")
                                   .messages({"hinge_loss_param", "loss_param"})
                                   .positional({"norm"})
                                   .named({"scores", "labels"})
                                   .bottoms(2, 2)
                                   .reads_bottom()
                                   .loss());

}  // namespace sparknet
