#include <vector>

#include "core/layer.h"
#include "core/loss.h"

namespace sparknet {

// The share of labels whose class is among the top_k scores. As in Caffe another class with the same score counts
// against the true one, and without any label that counts the result is 0. A second top gives the same for each class,
// 0 for those that do not occur.
class AccuracyLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("accuracy_param");
    top_k_ = own.integer("top_k");
    has_ignore_ = own.has("ignore_label");
    if (has_ignore_) ignore_ = own.integer("ignore_label");
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape shape = bottom[0]->shape();
    const int axis = canonical_axis(shape, param().message("accuracy_param").integer("axis"));
    check_labels_shape(*bottom[0], *bottom[1], axis);
    classes_ = shape[axis];
    inner_ = count(shape, axis + 1, static_cast<int>(shape.size()));
    if (top_k_ > classes_) {
      fail(ErrorKind::kField, "top_k ", top_k_, " is more than the ", classes_, " classes of `", bottom[0]->name, "` (",
           to_string(shape), ", axis ", axis, ")");
    }
    top[0]->reshape({});
    if (top.size() > 1) top[1]->reshape({classes_});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* scores = bottom[0]->data.read();
    const float* labels = bottom[1]->data.read();
    std::vector<int64_t> right(classes_), all(classes_);
    for (int64_t i = 0; i < bottom[1]->count(); ++i) {
      const int64_t label = to_label(labels[i]);
      if (has_ignore_ && label == ignore_) continue;
      check_label(label, labels[i], i, classes_);
      const float* from = scores + i / inner_ * classes_ * inner_ + i % inner_;
      const float own = from[label * inner_];
      int64_t not_worse = -1;  // the class itself is counted below
      // Not `>=`: scores that are NaN would make every answer right.
      for (int64_t c = 0; c < classes_; ++c) not_worse += !(from[c * inner_] < own);
      ++all[label];
      right[label] += not_worse < top_k_;
    }
    int64_t all_right = 0, total = 0;
    for (int64_t c = 0; c < classes_; ++c) all_right += right[c], total += all[c];
    *top[0]->data.overwrite() = share(all_right, total);
    if (top.size() > 1) {
      float* each = top[1]->data.overwrite();
      for (int64_t c = 0; c < classes_; ++c) each[c] = share(right[c], all[c]);
    }
  }

  void backward(const Blobs&, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (!propagate_down[i]) continue;
      throw Error(ErrorKind::kState,
                  join("Accuracy has no gradient, but force_backward or a loss_weight asks for one (of `",
                       bottom[i]->name, "`); drop that, or include the layer in the TEST phase only"),
                  static_cast<int>(i));
    }
  }

 private:
  static float share(int64_t part, int64_t whole) {
    return whole == 0 ? 0.0f : static_cast<float>(static_cast<double>(part) / static_cast<double>(whole));
  }

  int64_t top_k_ = 1;
  bool has_ignore_ = false;
  int64_t ignore_ = 0;
  int64_t classes_ = 0, inner_ = 1;
};

REGISTER_LAYER(AccuracyLayer, LayerSpec("Accuracy", "the share of labels among the top_k scores")
                                  .messages({"accuracy_param"})
                                  .positional({"top_k"})
                                  .named({"scores", "labels"})
                                  .bottoms(2, 2)
                                  .tops(1, 2));

}  // namespace sparknet
