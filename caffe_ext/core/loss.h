// What loss layers (and Accuracy) have in common: labels, and what a loss is divided by.
#pragma once

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/layer.h"
#include "core/message.h"

namespace sparknet {

// The loss_param of a layer: which items count, and what their sum is divided by.
class LossRule {
 public:
  // `preset`: the normalization mode of the type when nothing is written (Caffe: VALID, but BATCH_SIZE for
  // SigmoidCrossEntropyLoss). `normalize` is looked at only where `normalization` is absent.
  LossRule(const Message& layer, const char* preset) {
    const Message& param = layer.message("loss_param");
    has_ignore_ = param.has("ignore_label");
    if (has_ignore_) ignore_ = param.integer("ignore_label");
    if (param.has("normalization")) {
      mode_ = param.text("normalization");
    } else if (param.has("normalize")) {
      mode_ = param.flag("normalize") ? "VALID" : "BATCH_SIZE";
    } else {
      mode_ = preset;
    }
  }

  bool ignores(int64_t label) const { return has_ignore_ && label == ignore_; }

  // `all` items in `batch` rows of which `valid` were not ignored. At least 1, so that a batch without valid items has
  // loss 0 and not NaN.
  double normalizer(int64_t all, int64_t batch, int64_t valid) const {
    if (mode_ == "NONE") return 1.0;
    const int64_t by = mode_ == "FULL" ? all : mode_ == "VALID" ? valid : batch;
    return static_cast<double>(std::max<int64_t>(by, 1));
  }

 private:
  bool has_ignore_ = false;
  int64_t ignore_ = 0;
  std::string mode_;
};

// A label as Caffe reads it: the float truncated. NaN and what fits no int become -1.
inline int64_t to_label(float value) {
  return value > -2147483648.0f && value < 2147483648.0f ? static_cast<int64_t>(value) : -1;
}

// Throws Error(kData) unless 0 <= label < classes.
inline void check_label(int64_t label, float value, int64_t index, int64_t classes) {
  if (label >= 0 && label < classes) return;
  throw Error(ErrorKind::kData,
              join("label ", value, " (number ", index, " of the batch) is not one of the ", classes, " classes 0 .. ",
                   classes - 1),
              1);
}

// Rows of scores and labels must agree; all loss layers ask this, whatever their axis.
inline void check_same_rows(const Blobs& bottom) {
  const Shape &a = bottom[0]->shape(), &b = bottom[1]->shape();
  if (a.empty() || b.empty() || a[0] != b[0]) {
    throw Error(ErrorKind::kShape,
                join("both bottoms must have the same first extent, but `", bottom[0]->name, "` is ", to_string(a),
                     " and `", bottom[1]->name, "` is ", to_string(b)),
                1);
  }
}

// For losses without an axis: one label for each row.
inline void check_one_label_a_row(const Blobs& bottom) {
  const int64_t rows = bottom[0]->shape()[0];
  if (bottom[1]->count() == rows) return;
  throw Error(
      ErrorKind::kShape,
      join("`", bottom[0]->name, "` (", to_string(bottom[0]->shape()), ") needs ", rows, " labels, one for each ",
           "row, but `", bottom[1]->name, "` (", to_string(bottom[1]->shape()), ") has ", bottom[1]->count()),
      1);
}

// One label for each place of the scores' axes other than `axis`.
inline void check_labels_shape(const Blob& scores, const Blob& labels, int axis) {
  const int64_t classes = scores.shape()[axis];
  const int64_t wanted = count(scores.shape(), 0, axis) * count(scores.shape(), axis + 1, scores.data.axes());
  if (labels.count() == wanted) return;
  throw Error(ErrorKind::kShape,
              join("`", scores.name, "` (", to_string(scores.shape()), ") with ", classes, " classes along axis ", axis,
                   " needs ", wanted, " labels, but `", labels.name, "` (", to_string(labels.shape()), ") has ",
                   labels.count()),
              1);
}

// A gradient cannot be asked of labels.
[[noreturn]] inline void fail_label_gradient(const Blobs& bottom) {
  throw Error(ErrorKind::kState,
              join("there is no gradient with respect to the labels, but `", bottom[1]->name,
                   "` asks for one; write propagate_down: true and propagate_down: false into the layer"),
              1);
}

}  // namespace sparknet
