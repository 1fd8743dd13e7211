#include <algorithm>
#include <cmath>

#include "core/layer.h"
#include "core/loss.h"

namespace sparknet {

// The mean over all rows of -log(probability of the true class); the bottom holds probabilities, from a Softmax layer
// say, each counting as at least 1e-20 as in Caffe.
class MultinomialLogisticLossLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    check_same_rows(bottom);
    rows_ = bottom[0]->shape()[0];
    classes_ = rows_ == 0 ? 0 : bottom[0]->count() / rows_;
    check_one_label_a_row(bottom);
    top[0]->reshape({});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    double loss = 0.0;
    for_rows(bottom, [&](int64_t, float p) { loss -= std::log(p); });
    *top[0]->data.overwrite() = static_cast<float>(loss / divisor());
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[1]) fail_label_gradient(bottom);
    if (!propagate_down[0]) return;
    const float weight = static_cast<float>(*top[0]->diff.read() / divisor());
    bottom[0]->diff.zero();
    float* dx = bottom[0]->diff.write();
    for_rows(bottom, [&](int64_t at, float p) { dx[at] = -weight / p; });
  }

  bool allows_gradient(int index) const override { return index == 0; }

 private:
  double divisor() const { return static_cast<double>(std::max<int64_t>(rows_, 1)); }

  // Calls body(place, probability) for the true class of each row.
  template <typename Body>
  void for_rows(const Blobs& bottom, const Body& body) const {
    constexpr float kLeast = 1e-20f;
    const float *x = bottom[0]->data.read(), *labels = bottom[1]->data.read();
    for (int64_t row = 0; row < rows_; ++row) {
      const int64_t label = to_label(labels[row]);
      check_label(label, labels[row], row, classes_);
      const int64_t at = row * classes_ + label;
      body(at, x[at] < kLeast ? kLeast : x[at]);  // not std::max, which would hide NaN
    }
  }

  int64_t rows_ = 0, classes_ = 0;
};

REGISTER_LAYER(MultinomialLogisticLossLayer, LayerSpec("MultinomialLogisticLoss", "the logistic loss of probabilities")
                                                 .messages({"loss_param"})
                                                 .named({"probabilities", "labels"})
                                                 .bottoms(2, 2)
                                                 .reads_bottom()
                                                 .loss());

}  // namespace sparknet
