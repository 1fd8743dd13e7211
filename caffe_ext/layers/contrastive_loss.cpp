#include <algorithm>
#include <cmath>
#include <vector>

#include "core/loss.h"

namespace sparknet {

// Pulls pairs of rows that are similar together and pushes others at least `margin` apart (Hadsell et al.,
// "Dimensionality reduction by learning an invariant mapping", CVPR 2006). Of N pairs with distance d
//
//   1 / (2 N) sum (similar ? d² : max(margin - d, 0)²)
//
// where the third bottom says which are similar: those whose value, truncated, is not 0. With `legacy_version` others
// count max(margin - d², 0). The gradient divides by d + 1e-4, as Caffe's does, since d may be 0.
class ContrastiveLossLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("contrastive_loss_param");
    margin_ = own.real("margin");
    legacy_ = own.flag("legacy_version");
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    check_same_rows(bottom);
    const Shape& a = bottom[0]->shape();
    for (int which = 0; which < 2; ++which) {
      const Shape& shape = bottom[which]->shape();
      if (shape.size() > 4 || bottom[which]->count() != a[0] * (a.size() > 1 ? a[1] : 1)) {
        throw Error(ErrorKind::kShape,
                    join("both bottoms must be rows of values, N × C or N × C × 1 × 1, with as many values each, but `",
                         bottom[0]->name, "` is ", to_string(a), " and `", bottom[1]->name, "` is ",
                         to_string(bottom[1]->shape())),
                    which);
      }
    }
    if (bottom[2]->count() != a[0] || bottom[2]->shape().empty() || bottom[2]->shape()[0] != a[0]) {
      throw Error(ErrorKind::kShape,
                  join("`", bottom[2]->name, "` must have one value for each of the ", a[0], " pairs, it is ",
                       to_string(bottom[2]->shape())),
                  2);
    }
    pairs_ = a[0];
    values_ = bottom[0]->count() / std::max<int64_t>(pairs_, 1);
    top[0]->reshape({});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float *a = bottom[0]->data.read(), *b = bottom[1]->data.read(), *similar = bottom[2]->data.read();
    double sum = 0.0;
    for (int64_t i = 0; i < pairs_; ++i) {
      const double square = squared_distance(a, b, i);
      if (to_label(similar[i]) != 0) {
        sum += square;
      } else if (legacy_) {
        sum += std::max(margin_ - square, 0.0);
      } else {
        const double missing = std::max(margin_ - std::sqrt(square), 0.0);
        sum += missing * missing;
      }
    }
    *top[0]->data.overwrite() = static_cast<float>(sum / static_cast<double>(std::max<int64_t>(pairs_, 1)) / 2.0);
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    const float *a = bottom[0]->data.read(), *b = bottom[1]->data.read(), *similar = bottom[2]->data.read();
    const double weight = *top[0]->diff.read() / static_cast<double>(std::max<int64_t>(pairs_, 1));
    float* da = propagate_down[0] ? bottom[0]->diff.overwrite() : nullptr;
    float* db = propagate_down[1] ? bottom[1]->diff.overwrite() : nullptr;
    for (int64_t i = 0; i < pairs_; ++i) {
      const auto factor = static_cast<float>(weight * slope(to_label(similar[i]) != 0, squared_distance(a, b, i)));
      for (int64_t k = i * values_; k < (i + 1) * values_; ++k) {
        // Not factor * 0 where a pair does not count.
        const float gradient = factor == 0.0f ? 0.0f : factor * (a[k] - b[k]);
        if (da != nullptr) da[k] = gradient;
        if (db != nullptr) db[k] = -gradient;
      }
    }
    // A small change of the third changes nothing.
    if (propagate_down[2]) bottom[2]->diff.zero();
  }

  bool allows_gradient(int index) const override { return index != 2; }

 private:
  double squared_distance(const float* a, const float* b, int64_t pair) const {
    double sum = 0.0;
    for (int64_t k = pair * values_; k < (pair + 1) * values_; ++k) {
      const double difference = static_cast<double>(a[k]) - b[k];
      sum += difference * difference;
    }
    return sum;
  }

  // The loss of one pair goes with `slope` times a - b.
  double slope(bool similar, double square) const {
    constexpr double kLeast = 1e-4;
    if (similar) return 1.0;
    if (legacy_) return margin_ - square > 0.0 ? -1.0 : 0.0;
    const double distance = std::sqrt(square);
    return margin_ - distance > 0.0 ? -(margin_ - distance) / (distance + kLeast) : 0.0;
  }

  double margin_ = 1.0;
  bool legacy_ = false;
  int64_t pairs_ = 0, values_ = 0;
};

REGISTER_LAYER(ContrastiveLossLayer, LayerSpec("ContrastiveLoss", "brings similar pairs together, others apart")
                                         .messages({"contrastive_loss_param"})
                                         .positional({"margin"})
                                         .named({"first of each pair", "second of each pair", "whether similar"})
                                         .bottoms(3, 3)
                                         .reads_bottom()
                                         .loss());

}  // namespace sparknet
