#include "core/source.h"

namespace sparknet {

// Rows of HDF5 files, one dataset for each top. Only the files tell the shapes. See core/source.h.
class HDF5DataLayer : public SourceLayer {
 public:
  using SourceLayer::SourceLayer;

 protected:
  Shape shape_of(size_t, size_t) const override {
    if (param().has("transform_param")) fail(ErrorKind::kField, "HDF5Data does not transform: drop transform_param");
    positive(param().message("hdf5_data_param"), "batch_size");
    return unknown();
  }
};

REGISTER_LAYER(HDF5DataLayer, LayerSpec("HDF5Data", "rows of HDF5 files")
                                  .messages({"hdf5_data_param"})
                                  .positional({"source", "batch_size"})
                                  .bottoms(0, 0)
                                  .tops(1, LayerSpec::kAny)
                                  .source());

}  // namespace sparknet
