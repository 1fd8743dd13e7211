#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// Joins the axes from `axis` to `end_axis` into one. The top has the bottom's values and gradient themselves, not
// copies of them, as in Caffe: a layer that works in place on the top changes the bottom too.
class FlattenLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Message& own = param().message("flatten_param");
    const Shape& shape = bottom[0]->shape();
    const int first = canonical_axis(shape, own.integer("axis"));
    const int last = canonical_axis(shape, own.integer("end_axis"), "end_axis");
    if (first > last) {
      fail(ErrorKind::kField, "axis ", first, " comes after end_axis ", last, " (of ", to_string(shape), ")");
    }
    Shape flat(shape.begin(), shape.begin() + first);
    flat.push_back(count(shape, first, last + 1));
    flat.insert(flat.end(), shape.begin() + last + 1, shape.end());
    top[0]->reshape(flat);
    top[0]->data.share(bottom[0]->data);
    top[0]->diff.share(bottom[0]->diff);
  }

  void forward(const Blobs&, const Blobs&) override {}
  void backward(const Blobs&, const std::vector<bool>&, const Blobs&) override {}
};

REGISTER_LAYER(FlattenLayer, LayerSpec("Flatten", "joins neighbouring axes into one")
                                 .messages({"flatten_param"})
                                 .positional({"axis", "end_axis"}));

}  // namespace sparknet
