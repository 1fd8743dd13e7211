#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// The same values in another shape. `shape` replaces the `num_axes` axes from `axis` on (-1: all that follow); in it 0
// copies the bottom's extent at the same place, counted from `axis`, and one -1 is worked out from the others. A
// negative `axis` counts places between axes: -1 is after the last. The top has the bottom's values and gradient
// themselves, as in Caffe: a layer that works in place on the top changes the bottom too.
class ReshapeLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    int unknown = 0;
    for (const int64_t extent : given()) {
      if (extent < -1) fail(ErrorKind::kField, "shape has the extent ", extent, "; 0 copies one, -1 works one out");
      unknown += extent == -1;
    }
    if (unknown > 1) fail(ErrorKind::kField, "shape has ", unknown, " extents -1; only one can be worked out");
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Message& own = param().message("reshape_param");
    const Shape& from = bottom[0]->shape();
    const auto axes = static_cast<int64_t>(from.size());
    const int64_t axis = own.integer("axis"), num_axes = own.integer("num_axes");
    const int64_t begin = axis < 0 ? axis + axes + 1 : axis;
    if (begin < 0 || begin > axes) {
      fail(ErrorKind::kField, "axis ", axis, " does not exist: the bottom has ", axes, " axes (", to_string(from), ")");
    }
    const int64_t end = num_axes == -1 ? axes : begin + num_axes;
    if (num_axes < -1 || end > axes) {
      fail(ErrorKind::kField, "num_axes ", num_axes, " from axis ", begin, " on: the bottom has ", axes, " axes (",
           to_string(from), ")");
    }
    Shape to(from.begin(), from.begin() + begin);
    int64_t unknown = -1;
    for (const int64_t extent : given()) {
      const auto place = static_cast<int64_t>(to.size());
      if (extent == 0 && place >= axes) {
        fail(ErrorKind::kField, "shape copies axis ", place, ", but the bottom has ", axes, " axes (", to_string(from),
             ")");
      }
      if (extent == -1) unknown = place;
      to.push_back(extent == 0 ? from[place] : extent == -1 ? 1 : extent);
    }
    to.insert(to.end(), from.begin() + end, from.end());
    const int64_t known = count(to), all = bottom[0]->count();
    if (unknown >= 0 && known > 0 && all % known == 0) to[unknown] = all / known;
    if (count(to) != all) {
      if (unknown >= 0) {
        fail(ErrorKind::kShape, "no extent for the -1 in shape gives the ", all, " elements of ", to_string(from),
             ": the others give ", known);
      }
      fail(ErrorKind::kShape, "the bottom (", to_string(from), ") has ", all, " elements, the shape asked for (",
           to_string(to), ") ", known);
    }
    top[0]->reshape(to);
    top[0]->data.share(bottom[0]->data);
    top[0]->diff.share(bottom[0]->diff);
  }

  void forward(const Blobs&, const Blobs&) override {}
  void backward(const Blobs&, const std::vector<bool>&, const Blobs&) override {}

 private:
  const std::vector<int64_t>& given() const {
    return param().message("reshape_param").message("shape").integers("dim");
  }
};

REGISTER_LAYER(
    ReshapeLayer,
    LayerSpec("Reshape", "the same values in another shape").messages({"reshape_param"}).positional({"shape"}));

}  // namespace sparknet
