#include <cmath>
#include <vector>

#include "core/blob_file.h"
#include "core/layer.h"
#include "core/loss.h"
#include "core/softmax.h"

namespace sparknet {

// The logistic loss of the softmax of scores along `axis`, where every class counts as much as the information gain
// matrix H (K × K) says: -sum over k of H[label, k] log(probability k), each probability being at least 1e-20. H is the
// third bottom, or comes from the file `source`, a .binaryproto.
//
// As in Caffe there is no gradient with respect to H, and the older field `normalize` is refused. The second top is the
// probabilities.
class InfogainLossLayer : public Layer {
 public:
  InfogainLossLayer(const Message& param, Phase phase) : Layer(param, phase), rule_(param, "VALID") {}

  void setup(const Blobs& bottom, const Blobs&) override {
    if (param().message("loss_param").has("normalize")) {
      fail(ErrorKind::kField, "`normalize` is not for InfogainLoss; write `normalization`");
    }
    fed_ = bottom.size() > 2;
    if (!fed_ && source().empty())
      fail(ErrorKind::kField, "the matrix is missing: give a third bottom, or infogain_loss_param.source");
  }

  // Not in setup: the compiler's dry run opens no file that a net names.
  void begin(const Blobs&) override {
    if (fed_) return;
    matrix_ = read_blob_file(source());
    check_matrix(static_cast<int64_t>(matrix_.size()));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    check_same_rows(bottom);
    const Shape shape = bottom[0]->shape();
    const int axis = canonical_axis(shape, param().message("infogain_loss_param").integer("axis"));
    view_ = {count(shape, 0, axis), shape[axis], count(shape, axis + 1, static_cast<int>(shape.size()))};
    check_labels_shape(*bottom[0], *bottom[1], axis);
    if (fed_) {
      check_matrix(bottom[2]->count());
    } else if (!matrix_.empty()) {
      check_matrix(static_cast<int64_t>(matrix_.size()));
    }
    probability_.reshape(shape);
    top[0]->reshape({});
    if (top.size() > 1) top[1]->reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    constexpr float kLeast = 1e-20f;
    float* probability = probability_.overwrite();
    softmax(bottom[0]->data.read(), probability, view_);
    double loss = 0.0;
    valid_ = 0;
    for_items(bottom, [&](int64_t first, const float* row) {
      if (row == nullptr) return;
      for (int64_t c = 0; c < view_.channels; ++c) {
        const float p = probability[first + c * view_.inner];
        loss -= row[c] * std::log(p < kLeast ? kLeast : p);  // not std::max, which would hide NaN
      }
      ++valid_;
    });
    *top[0]->data.overwrite() = static_cast<float>(loss / normalizer());
    if (top.size() > 1) std::copy_n(probability, probability_.count(), top[1]->data.overwrite());
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[1]) fail_label_gradient(bottom);
    if (fed_ && propagate_down[2]) {
      throw Error(ErrorKind::kState,
                  join("there is no gradient with respect to the matrix `", bottom[2]->name,
                       "`, but force_backward or a layer below asks for one; write propagate_down into the layer"),
                  2);
    }
    if (!propagate_down[0]) return;
    const float weight = static_cast<float>(*top[0]->diff.read() / normalizer());
    const float* probability = probability_.read();
    float* dx = bottom[0]->diff.overwrite();
    for_items(bottom, [&](int64_t first, const float* row) {
      float sum = 0.0f;
      for (int64_t c = 0; row != nullptr && c < view_.channels; ++c) sum += row[c];
      for (int64_t c = 0; c < view_.channels; ++c) {
        const int64_t at = first + c * view_.inner;
        dx[at] = row == nullptr ? 0.0f : weight * (probability[at] * sum - row[c]);
      }
    });
  }

  bool allows_gradient(int index) const override { return index != 1; }

 private:
  // Calls body(place of the first class, the label's row of the matrix) for each label; no row for those that are
  // ignored.
  template <typename Body>
  void for_items(const Blobs& bottom, const Body& body) const {
    const float* labels = bottom[1]->data.read();
    const float* matrix = fed_ ? bottom[2]->data.read() : matrix_.data();
    for (int64_t i = 0; i < view_.outer * view_.inner; ++i) {
      const int64_t first = i / view_.inner * view_.channels * view_.inner + i % view_.inner;
      const int64_t label = to_label(labels[i]);
      if (rule_.ignores(label)) {
        body(first, static_cast<const float*>(nullptr));
        continue;
      }
      check_label(label, labels[i], i, view_.channels);
      body(first, matrix + label * view_.channels);
    }
  }

  const std::string& source() const { return param().message("infogain_loss_param").text("source"); }

  void check_matrix(int64_t got) const {
    if (got == view_.channels * view_.channels) return;
    throw Error(fed_ ? ErrorKind::kShape : ErrorKind::kData,
                join("the matrix must be ", view_.channels, " × ", view_.channels, " for ", view_.channels,
                     " classes; it has ", got, " values"),
                fed_ ? 2 : -1);
  }

  double normalizer() const { return rule_.normalizer(view_.outer * view_.inner, view_.outer, valid_); }

  const LossRule rule_;
  bool fed_ = false;  // the matrix is a bottom
  SoftmaxView view_{};
  std::vector<float> matrix_;  // of the file
  Tensor probability_;
  int64_t valid_ = 0;
};

REGISTER_LAYER(InfogainLossLayer, LayerSpec("InfogainLoss", "the logistic loss of scores, classes weighed by a matrix")
                                      .messages({"infogain_loss_param", "loss_param"})
                                      .positional({"source"})
                                      .named({"scores", "labels", "matrix"})
                                      .bottoms(2, 3)
                                      .tops(1, 2)
                                      .loss());

}  // namespace sparknet
