#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// Passes on those rows of its bottoms for which the last bottom, the selector, is not 0. How many those are shows only
// with the data: until the first forward pass the tops have the bottoms' shapes. There is no gradient with respect to
// the selector.
class FilterLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs& top) override {
    if (top.size() + 1 != bottom.size()) {
      fail(ErrorKind::kTops, bottom.size(), " bottoms, the last one the selector, need ", bottom.size() - 1,
           " tops, not ", top.size());
    }
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Blob& selector = *bottom.back();
    const int last = static_cast<int>(bottom.size()) - 1;
    const Shape& shape = selector.shape();
    if (shape.empty() || selector.count() != shape[0]) {
      throw Error(ErrorKind::kShape,
                  join("the selector `", selector.name, "` must have one value for each row, it is ", to_string(shape)),
                  last);
    }
    for (int i = 0; i < last; ++i) {
      const Shape& values = bottom[i]->shape();
      if (!values.empty() && values[0] == shape[0]) continue;
      throw Error(ErrorKind::kShape,
                  join("`", bottom[i]->name, "` (", to_string(values), ") must have as many rows as the selector `",
                       selector.name, "` (", to_string(shape), ")"),
                  i);
    }
    shape_tops(bottom, top, selected_ ? static_cast<int64_t>(rows_.size()) : shape[0]);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* selector = bottom.back()->data.read();
    rows_.clear();
    for (int64_t i = 0; i < bottom.back()->count(); ++i) {
      if (selector[i] != 0.0f) rows_.push_back(i);
    }
    selected_ = true;
    shape_tops(bottom, top, static_cast<int64_t>(rows_.size()));
    for (size_t i = 0; i < top.size(); ++i) {
      const int64_t row = row_size(*bottom[i]);
      const float* x = bottom[i]->data.read();
      float* y = top[i]->data.overwrite();
      for (size_t k = 0; k < rows_.size(); ++k) {
        const float* from = x + rows_[k] * row;
        std::copy(from, from + row, y + static_cast<int64_t>(k) * row);
      }
    }
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down.back()) {
      throw Error(ErrorKind::kState,
                  join("Filter has no gradient with respect to the selector, but one of `", bottom.back()->name,
                       "` is asked for; write propagate_down: false for it into the layer, and drop force_backward"),
                  static_cast<int>(bottom.size()) - 1);
    }
    for (size_t i = 0; i < top.size(); ++i) {
      if (!propagate_down[i]) continue;
      const int64_t row = row_size(*bottom[i]);
      const float* dy = top[i]->diff.read();
      bottom[i]->diff.zero();
      float* dx = bottom[i]->diff.write();
      for (size_t k = 0; k < rows_.size(); ++k) {
        const float* from = dy + static_cast<int64_t>(k) * row;
        std::copy(from, from + row, dx + rows_[k] * row);
      }
    }
  }

 private:
  static int64_t row_size(const Blob& blob) { return count(blob.shape(), 1, static_cast<int>(blob.shape().size())); }

  void shape_tops(const Blobs& bottom, const Blobs& top, int64_t rows) const {
    for (size_t i = 0; i < top.size(); ++i) {
      Shape shape = bottom[i]->shape();
      shape[0] = rows;
      if (top[i]->shape() == shape) continue;
      top[i]->reshape(shape);
      // A loss weight stands in the diff, which has just changed its size.
      if (selected_ && loss_weights[i] != 0.0f) {
        std::fill_n(top[i]->diff.overwrite(), top[i]->count(), loss_weights[i]);
      }
    }
  }

  bool selected_ = false;      // whether there has been a forward pass
  std::vector<int64_t> rows_;  // that the last one has passed on
};

REGISTER_LAYER(FilterLayer, LayerSpec("Filter", "rows of its bottoms, chosen by the last one")
                                .bottoms(2, LayerSpec::kAny)
                                .tops(1, LayerSpec::kAny));

}  // namespace sparknet
