#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// A learned array as a blob. As in Caffe the top is the parameter itself, values and gradient: what reads the top
// writes the parameter's gradient, in place of adding to it, so with iter_size only the last pass of an iteration
// counts.
class ParameterLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& fields = param().message("parameter_param");
    if (!fields.has("shape")) fail(ErrorKind::kField, "the shape is missing");
    // The message has no filler: Caffe starts with zeros, which is what an empty FillerParameter gives.
    add_param(fields.message("shape").integers("dim"), param().empty("scale_param").empty("filler"));
  }

  void reshape(const Blobs&, const Blobs& top) override {
    top[0]->reshape(params[0]->shape());
    share(top);
  }

  // The parameter may have become another layer's since.
  void begin(const Blobs& top) override { share(top); }
  void forward(const Blobs&, const Blobs&) override {}
  void backward(const Blobs&, const std::vector<bool>&, const Blobs&) override {}

 private:
  void share(const Blobs& top) const {
    top[0]->data.share(params[0]->data);
    top[0]->diff.share(params[0]->diff);
  }
};

REGISTER_LAYER(ParameterLayer, LayerSpec("Parameter", "a learned array as a blob")
                                   .messages({"parameter_param"})
                                   .positional({"shape"})
                                   .bottoms(0, 0)
                                   .most(1));

}  // namespace sparknet
