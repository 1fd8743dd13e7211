#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/layer.h"
#include "core/loss.h"

namespace sparknet {

// The rows of the first bottom in the order of the second, which holds their numbers: some may be left out, others come
// more than once. There is no gradient with respect to the numbers.
class BatchReindexLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    Shape shape = bottom[0]->shape();
    if (shape.empty()) fail(ErrorKind::kShape, "`", bottom[0]->name, "` has no rows: it is a scalar");
    if (bottom[1]->shape().size() != 1) {
      throw Error(ErrorKind::kShape,
                  join("`", bottom[1]->name, "`, the numbers of the rows, must have 1 axis, it is ",
                       to_string(bottom[1]->shape())),
                  1);
    }
    row_ = count(shape, 1, static_cast<int>(shape.size()));
    shape[0] = bottom[1]->count();
    top[0]->reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const std::vector<int64_t> rows = row_numbers(bottom);
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    for (size_t i = 0; i < rows.size(); ++i) {
      const float* from = x + rows[i] * row_;
      std::copy(from, from + row_, y + static_cast<int64_t>(i) * row_);
    }
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[1]) {
      throw Error(ErrorKind::kState,
                  join("BatchReindex has no gradient with respect to the rows' numbers, but one of `", bottom[1]->name,
                       "` is asked for; write propagate_down: true and propagate_down: false into the layer, and drop ",
                       "force_backward"),
                  1);
    }
    if (!propagate_down[0]) return;
    const std::vector<int64_t> rows = row_numbers(bottom);
    const float* dy = top[0]->diff.read();
    bottom[0]->diff.zero();
    float* dx = bottom[0]->diff.write();
    for (size_t i = 0; i < rows.size(); ++i) {
      const float* from = dy + static_cast<int64_t>(i) * row_;
      float* to = dx + rows[i] * row_;
      for (int64_t k = 0; k < row_; ++k) to[k] += from[k];
    }
  }

 private:
  static std::vector<int64_t> row_numbers(const Blobs& bottom) {
    const int64_t rows = bottom[0]->shape()[0];
    const float* numbers = bottom[1]->data.read();
    std::vector<int64_t> result(bottom[1]->count());
    for (size_t i = 0; i < result.size(); ++i) {
      result[i] = to_label(numbers[i]);
      if (result[i] >= 0 && result[i] < rows) continue;
      throw Error(ErrorKind::kData,
                  join("`", bottom[1]->name, "` asks for row ", numbers[i], " (at place ", i, "), but `",
                       bottom[0]->name, "` has ", rows, " rows, 0 .. ", rows - 1),
                  1);
    }
    return result;
  }

  int64_t row_ = 1;
};

REGISTER_LAYER(BatchReindexLayer, LayerSpec("BatchReindex", "rows of a blob, chosen and ordered by their numbers")
                                      .bottoms(2, 2)
                                      .named({"values", "numbers of rows"})
                                      .reads_bottom());

}  // namespace sparknet
