#include <algorithm>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// Its bottom `tiles` times in a row along `axis`.
class TileLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("tile_param");
    if (!own.has("tiles")) fail(ErrorKind::kField, "tiles is missing");
    tiles_ = own.integer("tiles");
    if (tiles_ < 1) fail(ErrorKind::kField, "tiles must be at least 1, not ", tiles_);
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    Shape shape = bottom[0]->shape();
    const int axis = canonical_axis(shape, param().message("tile_param").integer("axis"));
    outer_ = count(shape, 0, axis);
    inner_ = count(shape, axis, static_cast<int>(shape.size()));
    shape[axis] *= tiles_;
    top[0]->reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    parallel_for(outer_ * tiles_, grain(), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const float* from = x + k / tiles_ * inner_;
        std::copy(from, from + inner_, y + k * inner_);
      }
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float* dy = top[0]->diff.read();
    float* dx = bottom[0]->diff.overwrite();
    parallel_for(outer_, grain(), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* from = dy + row * tiles_ * inner_;
        float* to = dx + row * inner_;
        std::copy(from, from + inner_, to);
        for (int64_t tile = 1; tile < tiles_; ++tile) {
          for (int64_t i = 0; i < inner_; ++i) to[i] += from[tile * inner_ + i];
        }
      }
    });
  }

 private:
  int64_t grain() const { return std::max<int64_t>(kElementGrain / std::max<int64_t>(inner_, 1), 1); }

  int64_t tiles_ = 1, outer_ = 1, inner_ = 1;
};

REGISTER_LAYER(TileLayer,
               LayerSpec("Tile", "repeats a blob along an axis").messages({"tile_param"}).positional({"tiles"}));

}  // namespace sparknet
