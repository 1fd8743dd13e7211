#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// Its bottoms are written to a file after the pass, in Python (data_layers.py). No gradient comes from here.
class HDF5OutputLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    if (param().message("hdf5_output_param").text("file_name").empty()) fail(ErrorKind::kField, "file_name is missing");
  }

  void reshape(const Blobs& bottom, const Blobs&) override {
    const Shape &data = bottom[0]->shape(), &label = bottom[1]->shape();
    if (data.empty() || label.empty() || data[0] != label[0]) {
      fail(ErrorKind::kShape, "needs as many labels as rows of data; the shapes are ", to_string(data), " and ",
           to_string(label));
    }
  }

  void forward(const Blobs&, const Blobs&) override {}

  void backward(const Blobs&, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (propagate_down[i]) bottom[i]->diff.zero();
    }
  }
};

REGISTER_LAYER(HDF5OutputLayer, LayerSpec("HDF5Output", "writes data and labels to an HDF5 file")
                                    .messages({"hdf5_output_param"})
                                    .positional({"file_name"})
                                    .bottoms(2, 2)
                                    .named({"data", "label"})
                                    .tops(0, 0));

}  // namespace sparknet
