#include "core/source.h"

namespace sparknet {

// Windows of the images of a list, and their labels. Images are always read in colour; windows are warped to
// crop_size, which older files write into window_data_param. See core/source.h.
class WindowDataLayer : public SourceLayer {
 public:
  using SourceLayer::SourceLayer;

 protected:
  Shape shape_of(size_t index, size_t) const override {
    const Message& fields = param().message("window_data_param");
    const int64_t batch = positive(fields, "batch_size");
    const Message& transform = param().message("transform_param");
    const int64_t crop = positive(transform.has("crop_size") ? transform : fields, "crop_size");
    constexpr int64_t kColors = 3;
    return index == 1 ? Shape{batch} : Shape{batch, kColors, crop, crop};
  }
};

REGISTER_LAYER(WindowDataLayer, LayerSpec("WindowData", "windows of images, chosen at random and warped to one size")
                                    .messages({"window_data_param", "transform_param"})
                                    .positional({"source", "batch_size"})
                                    .bottoms(0, 0)
                                    .tops(2, 2)
                                    .source());

}  // namespace sparknet
