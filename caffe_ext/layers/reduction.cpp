#include <algorithm>
#include <cmath>
#include <string>

#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// All axes from `axis` on become one number: `coeff` times the sum of their values (SUM), of the absolute values
// (ASUM), of the squares (SUMSQ), or times the mean (MEAN). With axis 0 the top is a scalar.
class ReductionLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override { operation_ = param().message("reduction_param").text("operation"); }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Message& own = param().message("reduction_param");
    const Shape& shape = bottom[0]->shape();
    const int axis = canonical_axis(shape, own.integer("axis"));
    rows_ = count(shape, 0, axis);
    values_ = count(shape, axis, static_cast<int>(shape.size()));
    coeff_ = own.real("coeff");
    if (operation_ == "MEAN") coeff_ /= static_cast<double>(std::max<int64_t>(values_, 1));
    top[0]->reshape(Shape(shape.begin(), shape.begin() + axis));
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    parallel_for(rows_, grain(), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* from = x + row * values_;
        double sum = 0.0;
        if (operation_ == "ASUM") {
          for (int64_t i = 0; i < values_; ++i) sum += std::fabs(from[i]);
        } else if (operation_ == "SUMSQ") {
          for (int64_t i = 0; i < values_; ++i) sum += static_cast<double>(from[i]) * from[i];
        } else {
          for (int64_t i = 0; i < values_; ++i) sum += from[i];
        }
        y[row] = static_cast<float>(coeff_ * sum);
      }
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float *x = bottom[0]->data.read(), *dy = top[0]->diff.read();
    float* dx = bottom[0]->diff.overwrite();
    parallel_for(rows_, grain(), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* from = x + row * values_;
        float* to = dx + row * values_;
        const auto factor = static_cast<float>(coeff_ * dy[row]);
        if (operation_ == "ASUM") {
          for (int64_t i = 0; i < values_; ++i) {
            to[i] = factor * static_cast<float>((from[i] > 0.0f) - (from[i] < 0.0f));
          }
        } else if (operation_ == "SUMSQ") {
          for (int64_t i = 0; i < values_; ++i) to[i] = 2.0f * factor * from[i];
        } else {
          std::fill(to, to + values_, factor);
        }
      }
    });
  }

 private:
  int64_t grain() const { return std::max<int64_t>(kElementGrain / std::max<int64_t>(values_, 1), 1); }

  std::string operation_;
  double coeff_ = 1.0;
  int64_t rows_ = 1, values_ = 1;
};

REGISTER_LAYER(ReductionLayer, LayerSpec("Reduction", "sums or means over all axes from one on")
                                   .messages({"reduction_param"})
                                   .positional({"operation", "axis"})
                                   .reads_bottom());

}  // namespace sparknet
