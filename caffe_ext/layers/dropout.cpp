#include <algorithm>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"
#include "core/random.h"

namespace sparknet {

// In TRAIN each element is 0 with probability dropout_ratio, else divided by 1 - dropout_ratio; in TEST y = x
// (Srivastava et al., "Dropout", JMLR 2014). Which elements go is a function of random_key and the place in memory, so
// there is no mask to keep: backward draws the same numbers again.
class DropoutLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const double ratio = param().message("dropout_param").real("dropout_ratio");
    if (!(ratio >= 0.0 && ratio < 1.0)) {
      fail(ErrorKind::kField, "dropout_ratio must be at least 0 and less than 1, not ", ratio);
    }
    threshold_ = ratio * 4294967296.0;
    scale_ = static_cast<float>(1.0 / (1.0 - ratio));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    if (top[0] != bottom[0]) top[0]->reshape(bottom[0]->shape());
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    key_ = random_key;
    if (top[0] == bottom[0] && phase() == Phase::kTest) return;
    const NativeView x = bottom[0]->data.native();
    layout_ = x.layout;
    pass(x.values, top[0]->data.overwrite_as(x.layout), x.count);
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0] || (top[0] == bottom[0] && phase() == Phase::kTest)) return;
    // In TRAIN the layout must be the forward pass's: the mask belongs to places in memory.
    if (phase() == Phase::kTest) layout_ = top[0]->diff.layout();
    const float* dy = top[0]->diff.read_as(layout_);
    float* dx = bottom[0]->diff.overwrite_as(layout_);
    pass(dy, dx, bottom[0]->diff.native().count);
  }

 private:
  static constexpr int64_t kBlock = 4;

  void pass(const float* from, float* to, int64_t count) const {
    if (phase() == Phase::kTest) {
      parallel_for(count, kElementGrain,
                   [&](int64_t begin, int64_t end) { std::copy(from + begin, from + end, to + begin); });
      return;
    }
    parallel_for((count + kBlock - 1) / kBlock, kElementGrain / kBlock, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const auto words = philox(key_, static_cast<uint64_t>(block));
        const int64_t first = block * kBlock, n = std::min(kBlock, count - first);
        for (int64_t i = 0; i < n; ++i) to[first + i] = words[i] >= threshold_ ? from[first + i] * scale_ : 0.0f;
      }
    });
  }

  double threshold_ = 0.0;  // of 2^32
  float scale_ = 1.0f;
  uint64_t key_ = 0;
  LayoutPtr layout_;
};

REGISTER_LAYER(DropoutLayer, LayerSpec("Dropout", "zeroes elements at random while training, scales the others up")
                                 .messages({"dropout_param"})
                                 .positional({"dropout_ratio"})
                                 .in_place());

}  // namespace sparknet
