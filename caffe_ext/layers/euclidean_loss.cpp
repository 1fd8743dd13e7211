#include <algorithm>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// sum (a - b)² / (2 N), N being the number of rows. Both bottoms get a gradient.
class EuclideanLossLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape &a = bottom[0]->shape(), &b = bottom[1]->shape();
    // As in Caffe (2, 3, 4) and (2, 12) fit: rows and the elements of each must agree.
    if (a.empty() || b.empty() || a[0] != b[0] || bottom[0]->count() != bottom[1]->count()) {
      throw Error(ErrorKind::kShape,
                  join("both bottoms must have as many rows and elements, but `", bottom[0]->name, "` is ",
                       to_string(a), " and `", bottom[1]->name, "` is ", to_string(b)),
                  1);
    }
    top[0]->reshape({});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float *a = bottom[0]->data.read(), *b = bottom[1]->data.read();
    double sum = 0.0;
    for (int64_t i = 0; i < bottom[0]->count(); ++i) {
      const double difference = static_cast<double>(a[i]) - b[i];
      sum += difference * difference;
    }
    *top[0]->data.overwrite() = static_cast<float>(sum / rows(bottom) / 2.0);
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    const float *a = bottom[0]->data.read(), *b = bottom[1]->data.read();
    const float weight = static_cast<float>(*top[0]->diff.read() / rows(bottom));
    for (int which = 0; which < 2; ++which) {
      if (!propagate_down[which]) continue;
      const float factor = which == 0 ? weight : -weight;
      float* d = bottom[which]->diff.overwrite();
      parallel_for(bottom[0]->count(), kElementGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) d[i] = factor * (a[i] - b[i]);
      });
    }
  }

 private:
  static double rows(const Blobs& bottom) { return static_cast<double>(std::max<int64_t>(bottom[0]->shape()[0], 1)); }
};

REGISTER_LAYER(EuclideanLossLayer, LayerSpec("EuclideanLoss", "half the mean squared distance of rows")
                                       .messages({"loss_param"})
                                       .named({"predictions", "targets"})
                                       .bottoms(2, 2)
                                       .reads_bottom()
                                       .loss());

}  // namespace sparknet
