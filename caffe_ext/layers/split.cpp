#include <algorithm>

#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// Gives one blob to several readers: the tops share its data, and their gradients are summed. The net inserts one
// wherever a blob has more than one reader.
class SplitLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    for (Blob* blob : top) {
      blob->reshape(bottom[0]->shape());
      blob->data.share(bottom[0]->data);
    }
  }

  void forward(const Blobs&, const Blobs&) override {}

  bool keeps_bottom() const override { return false; }
  bool keeps_top() const override { return false; }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    // Readers that pass no gradient on leave their top's diff at 0.
    std::vector<const Tensor*> parts;
    LayoutPtr layout;
    for (const Blob* blob : top) {
      if (blob->diff.is_zero()) continue;
      parts.push_back(&blob->diff);
      if (!layout) layout = blob->diff.layout();
    }
    if (parts.empty()) {
      bottom[0]->diff.zero();
      return;
    }
    if (parts.size() == 1) {
      bottom[0]->diff.copy(*parts[0]);
      return;
    }
    std::vector<const float*> from;
    for (const Tensor* part : parts) from.push_back(part->read_as(layout));
    float* to = bottom[0]->diff.overwrite_as(layout);
    parallel_for(bottom[0]->diff.native().count, kElementGrain, [&](int64_t begin, int64_t end) {
      // Piece by piece, so that the sum stays in the cache until it is whole.
      for (int64_t at = begin; at < end; at += kPiece) {
        const int64_t length = std::min(kPiece, end - at);
        std::copy_n(from[0] + at, length, to + at);
        for (size_t k = 1; k < from.size(); ++k) add(from[k] + at, length, to + at);
      }
    });
  }

 private:
  static constexpr int64_t kPiece = 4096;

  static void add(const float* from, int64_t length, float* to) {
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) to[i] += from[i];
  }
};

REGISTER_LAYER(SplitLayer,
               LayerSpec("Split", "the same blob for several readers; gradients are summed").tops(1, LayerSpec::kAny));

}  // namespace sparknet
