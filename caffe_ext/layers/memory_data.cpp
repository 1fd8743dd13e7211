#include "core/source.h"

namespace sparknet {

// Images and labels from arrays (Net.set_input_arrays in Python): batch_size × channels × height × width, and
// batch_size. See core/source.h.
class MemoryDataLayer : public SourceLayer {
 public:
  using SourceLayer::SourceLayer;

 protected:
  Shape shape_of(size_t index, size_t) const override {
    const Message& fields = param().message("memory_data_param");
    const int64_t batch = positive(fields, "batch_size");
    if (index == 1) return {batch};
    return {batch, positive(fields, "channels"), positive(fields, "height"), positive(fields, "width")};
  }
};

REGISTER_LAYER(MemoryDataLayer, LayerSpec("MemoryData", "images and labels from arrays")
                                    .messages({"memory_data_param", "transform_param"})
                                    .positional({"batch_size", "channels", "height", "width"})
                                    .bottoms(0, 0)
                                    .tops(2, 2)
                                    .source());

}  // namespace sparknet
