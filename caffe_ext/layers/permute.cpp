#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// The axes in another order (SSD's fork of Caffe, github.com/weiliu89/caffe): axis i of the top is axis order[i] of the
// bottom. Axes that `order` leaves out follow as they are.
class PermuteLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    const auto axes = static_cast<int64_t>(shape.size());
    std::vector<int64_t> order;
    const auto used = [&](int64_t axis) { return std::find(order.begin(), order.end(), axis) != order.end(); };
    for (const int64_t axis : param().message("permute_param").integers("order")) {
      if (axis >= axes) {
        fail(ErrorKind::kField, "order: axis ", axis, " does not exist: the bottom has ", axes, " axes (",
             to_string(shape), ")");
      }
      if (used(axis)) fail(ErrorKind::kField, "order: axis ", axis, " is given twice");
      order.push_back(axis);
    }
    for (int64_t axis = 0; axis < axes; ++axis) {
      if (!used(axis)) order.push_back(axis);
    }
    Shape result;
    strides_.clear();
    for (const int64_t axis : order) {
      result.push_back(shape[axis]);
      strides_.push_back(count(shape, static_cast<int>(axis) + 1, static_cast<int>(axes)));
    }
    top[0]->reshape(result);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    for_each_value(top[0]->shape(), [=](int64_t from, int64_t to) { y[to] = x[from]; });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float* dy = top[0]->diff.read();
    float* dx = bottom[0]->diff.overwrite();
    for_each_value(top[0]->shape(), [=](int64_t to, int64_t from) { dx[to] = dy[from]; });
  }

 private:
  // Calls body(index in the bottom, in the top) for every value.
  template <typename Body>
  void for_each_value(const Shape& shape, const Body& body) const {
    const int last = static_cast<int>(shape.size()) - 1;
    const int64_t row = last < 0 ? 1 : shape[last], step = last < 0 ? 1 : strides_[last];
    parallel_for(last < 0 ? 1 : count(shape, 0, last), std::max<int64_t>(kElementGrain / std::max<int64_t>(row, 1), 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     int64_t from = 0, rest = i;
                     for (int axis = last - 1; axis >= 0; --axis) {
                       from += rest % shape[axis] * strides_[axis];
                       rest /= shape[axis];
                     }
                     for (int64_t k = 0; k < row; ++k) body(from + k * step, i * row + k);
                   }
                 });
  }

  std::vector<int64_t> strides_;  // in the bottom, along each axis of the top
};

REGISTER_LAYER(PermuteLayer,
               LayerSpec("Permute", "the axes in another order").messages({"permute_param"}).positional({"order"}));

}  // namespace sparknet
