#include <algorithm>
#include <memory>
#include <vector>

#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// Spatial pyramid pooling (He et al., ECCV 2014): each channel plane pooled into 1, 2 × 2, 4 × 4, ... windows, one
// level after the other in a row of fixed length whatever the size of the planes. With a pyramid_height of 1 the top
// keeps its 4 axes, as in Caffe.
//
// Level l is a Pooling layer with 2^l windows along each axis: kernel and stride ceil(size / 2^l), and as much padding
// as the windows reach beyond the plane, half of it (rounded up) in front.
class SPPLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const int64_t height = param().message("spp_param").integer("pyramid_height");
    constexpr int64_t kMost = 16;  // 2^16 windows along an axis
    if (height < 1 || height > kMost) {
      fail(ErrorKind::kField, "pyramid_height must be between 1 and ", kMost, ", not ", height);
    }
    levels_.resize(height);
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.size() != 4) {
      fail(ErrorKind::kShape, "the bottom must have 4 axes (N × C × H × W), not ", to_string(shape));
    }
    int64_t width = 0;
    for (size_t i = 0; i < levels_.size(); ++i) {
      Level& level = levels_[i];
      if (shape != shape_) level.pooling = make_pooling(shape, int64_t{1} << i, bottom, {&level.pooled});
      level.pooling->reshape(bottom, {&level.pooled});
      width += level.pooled.count() / std::max<int64_t>(shape[0], 1);
    }
    shape_ = shape;
    top[0]->reshape(levels_.size() == 1 ? levels_[0].pooled.shape() : Shape{shape[0], width});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    float* y = top[0]->data.overwrite();
    const int64_t rows = shape_[0];
    const int64_t width = rows == 0 ? 0 : top[0]->count() / rows;
    int64_t first = 0;
    for (Level& level : levels_) {
      level.pooling->random_key = random_key;
      level.pooling->forward(bottom, {&level.pooled});
      const float* from = level.pooled.data.read();
      const int64_t part = rows == 0 ? 0 : level.pooled.count() / rows;
      for (int64_t row = 0; row < rows; ++row) std::copy_n(from + row * part, part, y + row * width + first);
      first += part;
    }
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float* dy = top[0]->diff.read();
    const int64_t rows = shape_[0];
    const int64_t width = rows == 0 ? 0 : top[0]->count() / rows;
    std::vector<float> sum(bottom[0]->count());
    int64_t first = 0;
    for (Level& level : levels_) {
      float* to = level.pooled.diff.overwrite();
      const int64_t part = rows == 0 ? 0 : level.pooled.count() / rows;
      for (int64_t row = 0; row < rows; ++row) std::copy_n(dy + row * width + first, part, to + row * part);
      first += part;
      level.pooling->backward({&level.pooled}, propagate_down, bottom);
      const float* dx = bottom[0]->diff.read();
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += dx[i];
    }
    std::copy(sum.begin(), sum.end(), bottom[0]->diff.overwrite());
  }

 private:
  struct Level {
    std::unique_ptr<Layer> pooling;
    Blob pooled;
  };

  std::unique_ptr<Layer> make_pooling(const Shape& shape, int64_t windows, const Blobs& bottom,
                                      const Blobs& top) const {
    Message layer = param().empty_like();
    Message fields = layer.empty("pooling_param");
    const char* const kernel[] = {"kernel_h", "kernel_w"};
    const char* const stride[] = {"stride_h", "stride_w"};
    const char* const pad[] = {"pad_h", "pad_w"};
    fields.field("pool").texts = {param().message("spp_param").text("pool")};
    for (int axis = 0; axis < 2; ++axis) {
      const int64_t size = shape[2 + axis];
      const int64_t extent = (size + windows - 1) / windows;
      if (size < 1) fail(ErrorKind::kShape, "the bottom (", to_string(shape), ") has no places to pool");
      fields.field(kernel[axis]).integers = {extent};
      fields.field(stride[axis]).integers = {extent};
      fields.field(pad[axis]).integers = {(extent * windows - size + 1) / 2};
    }
    layer.field("pooling_param").messages = {fields};
    auto pooling = Registry::find("Pooling")->create(layer, phase());
    try {
      pooling->setup(bottom, top);
    } catch (const Error& error) {
      fail(error.kind(), "planes of ", shape[2], " × ", shape[3], " cannot be cut into ", windows, " × ", windows,
           " windows: ", error.what());
    }
    return pooling;
  }

  std::vector<Level> levels_;
  Shape shape_;
};

REGISTER_LAYER(SPPLayer, LayerSpec("SPP", "pools each plane into 1, 2 × 2, 4 × 4, ... windows")
                             .messages({"spp_param"})
                             .positional({"pyramid_height", "pool"}));

}  // namespace sparknet
