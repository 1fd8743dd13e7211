#include "core/source.h"
#include "core/transform.h"

namespace sparknet {

// Images of a list of files, and their labels. The size of the images is known where they are cropped or resized. See
// core/source.h.
class ImageDataLayer : public SourceLayer {
 public:
  using SourceLayer::SourceLayer;

 protected:
  Shape shape_of(size_t index, size_t) const override {
    const Message& fields = param().message("image_data_param");
    const int64_t batch = positive(fields, "batch_size");
    const int64_t height = fields.integer("new_height"), width = fields.integer("new_width");
    if ((height == 0) != (width == 0)) fail(ErrorKind::kField, "new_height and new_width go together");
    if (index == 1) return {batch};
    const int64_t channels = fields.flag("is_color") ? 3 : 1;
    const int64_t crop = param().message("transform_param").integer("crop_size");
    if (crop > 0) return {batch, channels, crop, crop};
    return height > 0 ? Shape{batch, channels, height, width} : unknown();
  }
};

REGISTER_LAYER(ImageDataLayer, LayerSpec("ImageData", "images that a list names, and their labels")
                                   .messages({"image_data_param", "transform_param"})
                                   .extensions(Augmentation::fields())
                                   .positional({"source", "batch_size"})
                                   .bottoms(0, 0)
                                   .tops(2, 2)
                                   .source());

}  // namespace sparknet
