#include "core/source.h"
#include "core/transform.h"

namespace sparknet {

// Images of an LMDB or LevelDB, and their labels. Only the records tell the size of the images; the dry run takes the
// batch's, too, from whoever supplies the shapes. See core/source.h.
class DataLayer : public SourceLayer {
 public:
  using SourceLayer::SourceLayer;

 protected:
  Shape shape_of(size_t index, size_t) const override {
    const int64_t batch = param().message("data_param").integer("batch_size");
    return index == 1 && batch > 0 ? Shape{batch} : unknown();
  }
};

REGISTER_LAYER(DataLayer, LayerSpec("Data", "images and labels of an LMDB or LevelDB")
                              .messages({"data_param", "transform_param"})
                              .extensions(Augmentation::fields())
                              .positional({"source"})
                              .bottoms(0, 0)
                              .tops(1, 2)
                              .source());

}  // namespace sparknet
