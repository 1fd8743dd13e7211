#include "core/error.h"
#include "core/layer.h"
#include "core/transform.h"

namespace sparknet {

namespace {

// One shape for all tops, or one for each.
void shape_tops(const Message& param, const Blobs& top) {
  const auto& shapes = param.message("input_param").messages("shape");
  if (shapes.size() != 1 && shapes.size() != top.size()) {
    fail(ErrorKind::kField, "input_param has ", shapes.size(), " shapes for ", top.size(),
         " tops; give one, or one for each");
  }
  for (size_t i = 0; i < top.size(); ++i) top[i]->reshape(shapes[shapes.size() == 1 ? 0 : i].integers("dim"));
}

// The shape of what nobody has described yet.
const Shape kUnknown = {0};

}  // namespace

// Tops that are filled from outside.
class InputLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs& top) override {
    // Whoever fills the tops transforms the rows; what is wrong with the settings the dry run knows already.
    Augmentation(param().message("transform_param"), Phase::kTrain);
    if (param().message("input_param").messages("shape").empty()) {
      for (Blob* blob : top) blob->reshape(kUnknown);
    } else {
      shape_tops(param(), top);
    }
  }
  // Whoever fills the tops may have changed their shapes.
  void reshape(const Blobs&, const Blobs&) override {}
  void forward(const Blobs&, const Blobs&) override {}
  void backward(const Blobs&, const std::vector<bool>&, const Blobs&) override {}
};

// The rows of a Spark data set, written into the tops by the training loop.
using RDDDataLayer = InputLayer;

REGISTER_LAYER(InputLayer, LayerSpec("Input", "tops of given shapes, filled by the caller")
                               .messages({"input_param"})
                               .extensions(Augmentation::fields())
                               .positional({"shape"})
                               .bottoms(0, 0)
                               .tops(1, LayerSpec::kAny)
                               .source());
REGISTER_LAYER(RDDDataLayer, LayerSpec("RDDData", "rows of a Spark data set, transformed")
                                 .messages({"input_param", "data_param", "transform_param"})
                                 .extensions(Augmentation::fields())
                                 .positional({"shape"})
                                 .bottoms(0, 0)
                                 .tops(1, LayerSpec::kAny)
                                 .source());

}  // namespace sparknet
