#include <algorithm>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// The places of the top_k largest values, largest first; of equal values the later one comes first, as in Caffe.
//
// Without `axis`, over all values of each of the N rows: the top is N × 1 × top_k (with more 1s for bottoms of more
// axes), or with out_max_val N × 2 × top_k, places before values. With `axis`, along that one: the top has the bottom's
// axes, top_k along this one, and holds places, or with out_max_val the values instead.
class ArgMaxLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("argmax_param");
    top_k_ = own.integer("top_k");
    values_ = own.flag("out_max_val");
    has_axis_ = own.has("axis");
    if (top_k_ < 1) fail(ErrorKind::kField, "top_k must be at least 1");
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    const int axes = static_cast<int>(shape.size());
    Shape result;
    if (has_axis_) {
      const int axis = canonical_axis(shape, param().message("argmax_param").integer("axis"));
      candidates_ = shape[axis];
      inner_ = count(shape, axis + 1, axes);
      result = shape;
      result[axis] = top_k_;
    } else {
      if (shape.empty()) fail(ErrorKind::kShape, "the bottom must have at least 1 axis");
      candidates_ = count(shape, 1, axes);
      inner_ = 1;
      result.assign(std::max(axes, 3), 1);
      result[0] = shape[0];
      result[1] = values_ ? 2 : 1;
      result[2] = top_k_;
    }
    if (top_k_ > candidates_) {
      fail(ErrorKind::kField, "top_k ", top_k_, " is more than the ", candidates_, " values to choose from (bottom ",
           to_string(shape), ")");
    }
    top[0]->reshape(result);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    const int64_t grain = std::max<int64_t>(kElementGrain / std::max<int64_t>(candidates_, 1), 1);
    parallel_for(bottom[0]->count() / candidates_, grain, [&](int64_t begin, int64_t end) {
      std::vector<std::pair<float, int64_t>> ranked(candidates_);
      for (int64_t row = begin; row < end; ++row) {
        const int64_t outer = row / inner_, rest = row % inner_;
        for (int64_t i = 0; i < candidates_; ++i) ranked[i] = {x[(outer * candidates_ + i) * inner_ + rest], i};
        std::partial_sort(ranked.begin(), ranked.begin() + top_k_, ranked.end(), before);
        for (int64_t k = 0; k < top_k_; ++k) {
          const auto place = static_cast<float>(ranked[k].second);
          if (has_axis_) {
            y[(outer * top_k_ + k) * inner_ + rest] = values_ ? ranked[k].first : place;
          } else {
            float* out = y + row * top_k_ * (values_ ? 2 : 1);
            out[k] = place;
            if (values_) out[top_k_ + k] = ranked[k].first;
          }
        }
      }
    });
  }

  void backward(const Blobs&, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    throw Error(ErrorKind::kState,
                join("ArgMax has no gradient, but a loss, a loss_weight or force_backward asks for one (of `",
                     bottom[0]->name, "`); write propagate_down: false into the layer or drop force_backward"),
                0);
  }

 private:
  // NaN comes last: sorting needs an order.
  static bool before(const std::pair<float, int64_t>& a, const std::pair<float, int64_t>& b) {
    const bool a_nan = a.first != a.first, b_nan = b.first != b.first;
    if (a_nan != b_nan) return b_nan;
    if (!a_nan && a.first != b.first) return a.first > b.first;
    return a.second > b.second;
  }

  int64_t top_k_ = 1, candidates_ = 1, inner_ = 1;
  bool values_ = false, has_axis_ = false;
};

REGISTER_LAYER(ArgMaxLayer,
               LayerSpec("ArgMax", "where the largest values are").messages({"argmax_param"}).positional({"top_k"}));

}  // namespace sparknet
