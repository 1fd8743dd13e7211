#include <algorithm>
#include <cmath>
#include <vector>

#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// Each channel of each item (with across_channels each item) minus its mean, and divided by its standard deviation
// unless normalize_variance is false.
//
// As in Caffe `eps` is added to the standard deviation, not to the variance, and the gradient takes it for a part of
// the deviation: y's own dependence on eps is left out, which only a large eps shows. Unlike there, backward is also
// right in place.
class MVNLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& fields = param().message("mvn_param");
    normalize_ = fields.flag("normalize_variance");
    across_ = fields.flag("across_channels");
    eps_ = fields.real("eps");
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (top[0] != bottom[0]) top[0]->reshape(shape);
    rows_ = sparknet::count(shape, 0, std::min<int>(across_ ? 1 : 2, bottom[0]->data.axes()));
    size_ = rows_ == 0 ? 0 : bottom[0]->count() / rows_;
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    deviations_.resize(rows_);
    for_rows([=](int64_t row) {
      const float* from = x + row * size_;
      float* to = y + row * size_;
      double sum = 0.0, squares = 0.0;
      for (int64_t i = 0; i < size_; ++i) sum += from[i];
      const auto mean = static_cast<float>(sum / static_cast<double>(size_));
      for (int64_t i = 0; i < size_; ++i) {
        to[i] = from[i] - mean;
        squares += static_cast<double>(to[i]) * to[i];
      }
      if (!normalize_) return;
      deviations_[row] = static_cast<float>(std::sqrt(squares / static_cast<double>(size_)) + eps_);
      for (int64_t i = 0; i < size_; ++i) to[i] /= deviations_[row];
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float* y = top[0]->data.read();
    const float* dy = top[0]->diff.read();
    float* dx = bottom[0]->diff.overwrite();
    for_rows([=](int64_t row) {
      const float *values = y + row * size_, *from = dy + row * size_;
      float* to = dx + row * size_;
      double sum = 0.0, product = 0.0;
      for (int64_t i = 0; i < size_; ++i) {
        sum += from[i];
        product += static_cast<double>(from[i]) * values[i];
      }
      const auto mean = static_cast<float>(sum / static_cast<double>(size_));
      const auto slope = static_cast<float>(product / static_cast<double>(size_));
      for (int64_t i = 0; i < size_; ++i) {
        to[i] = normalize_ ? (from[i] - mean - slope * values[i]) / deviations_[row] : from[i] - mean;
      }
    });
  }

 private:
  template <typename Body>
  void for_rows(const Body& body) const {
    parallel_for(rows_, std::max<int64_t>(kElementGrain / std::max<int64_t>(size_, 1), 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) body(row);
                 });
  }

  bool normalize_ = true, across_ = false;
  double eps_ = 0.0;
  int64_t rows_ = 0, size_ = 0;
  std::vector<float> deviations_;  // of each row, eps included
};

REGISTER_LAYER(MVNLayer, LayerSpec("MVN", "each channel of each item to mean 0 and variance 1")
                             .messages({"mvn_param"})
                             .in_place()
                             .reads_top());

}  // namespace sparknet
