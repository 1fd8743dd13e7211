#include <algorithm>
#include <vector>

#include "core/loss.h"

namespace sparknet {

// Of scores N × C × H × W and labels N × 1 × H × W three numbers, top 1 × 1 × 1 × 3, from the counts of labels and best
// classes: the share of right places; the mean over the classes that occur of the share of their places that are right;
// the mean over all classes of intersection over union, where a class that is neither label nor answer counts 1. As in
// DeepLab's fork of Caffe (Chen et al., "Semantic image segmentation with deep convolutional nets and fully connected
// CRFs", ICLR 2015); of equal scores the later class wins there. With `reset: false` counts add up from pass to pass.
class SegAccuracyLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    check_same_rows(bottom);
    const Shape& shape = bottom[0]->shape();
    if (shape.size() < 2 || shape[1] < 1) {
      fail(ErrorKind::kShape, "`", bottom[0]->name, "` must be N × C × H × W, not ", to_string(shape));
    }
    check_labels_shape(*bottom[0], *bottom[1], 1);
    if (static_cast<int64_t>(counts_.size()) != shape[1] * shape[1]) classes_ = 0;  // counts are of other classes
    top[0]->reshape({1, 1, 1, 3});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const Message& fields = param().message("seg_accuracy_param");
    const auto& ignored = fields.integers("ignore_label");
    const Shape& shape = bottom[0]->shape();
    const int64_t inner = count(shape, 2, static_cast<int>(shape.size()));
    if (classes_ == 0 || fields.flag("reset")) counts_.assign(static_cast<size_t>(count({shape[1], shape[1]})), 0);
    classes_ = shape[1];
    const float *scores = bottom[0]->data.read(), *labels = bottom[1]->data.read();
    for (int64_t i = 0; i < shape[0] * inner; ++i) {
      const int64_t label = to_label(labels[i]);
      if (std::find(ignored.begin(), ignored.end(), label) != ignored.end()) continue;
      check_label(label, labels[i], i, classes_);
      const float* at = scores + i / inner * classes_ * inner + i % inner;
      int64_t best = 0;
      for (int64_t c = 1; c < classes_; ++c) {
        if (at[c * inner] >= at[best * inner]) best = c;
      }
      ++counts_[label * classes_ + best];
    }
    write_means(top[0]->data.overwrite());
  }

  void backward(const Blobs&, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    for (int i = 0; i < 2; ++i) {
      if (!propagate_down[i]) continue;
      throw Error(ErrorKind::kState,
                  join("SegAccuracy has no gradient, but a loss_weight or force_backward asks for one (of `",
                       bottom[i]->name, "`); write propagate_down: false twice into the layer or drop force_backward"),
                  i);
    }
  }

 private:
  void write_means(float* to) const {
    int64_t all = 0, right = 0, present = 0;
    double recall = 0.0, jaccard = 0.0;
    for (int64_t c = 0; c < classes_; ++c) {
      int64_t labelled = 0, answered = 0;
      for (int64_t other = 0; other < classes_; ++other) {
        labelled += counts_[c * classes_ + other];
        answered += counts_[other * classes_ + c];
      }
      const int64_t hits = counts_[c * classes_ + c], either = labelled + answered - hits;
      all += labelled;
      right += hits;
      if (labelled > 0) {
        recall += static_cast<double>(hits) / static_cast<double>(labelled);
        ++present;
      }
      jaccard += either == 0 ? 1.0 : static_cast<double>(hits) / static_cast<double>(either);
    }
    to[0] = static_cast<float>(static_cast<double>(right) / static_cast<double>(std::max<int64_t>(all, 1)));
    to[1] = static_cast<float>(recall / static_cast<double>(std::max<int64_t>(present, 1)));
    to[2] = static_cast<float>(jaccard / static_cast<double>(classes_));
  }

  int64_t classes_ = 0;
  std::vector<int64_t> counts_;  // [label][best class]
};

REGISTER_LAYER(SegAccuracyLayer, LayerSpec("SegAccuracy", "accuracy over places and classes, intersection over union")
                                     .messages({"seg_accuracy_param"})
                                     .named({"scores", "labels"})
                                     .bottoms(2, 2));

}  // namespace sparknet
