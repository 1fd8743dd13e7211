#include "core/layer.h"

namespace sparknet {

// Takes blobs that nobody else reads, so that they are no outputs of the net. Their gradient is 0.
class SilenceLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs&, const Blobs&) override {}
  void forward(const Blobs&, const Blobs&) override {}

  void backward(const Blobs&, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (propagate_down[i]) bottom[i]->diff.zero();
    }
  }
};

REGISTER_LAYER(SilenceLayer,
               LayerSpec("Silence", "takes blobs that nobody reads").bottoms(1, LayerSpec::kAny).tops(0, 0));

}  // namespace sparknet
