#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// Cuts the part out of the first bottom that has the second one's extents, along all axes from `axis` on; it begins at
// `offset` (one for all those axes or one for each, 0 if absent). Along the axes before `axis` everything is taken,
// whatever extents the second bottom has there. Its values are not read, its gradient is 0.
class CropLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Message& own = param().message("crop_param");
    const Shape &shape = bottom[0]->shape(), &sizes = bottom[1]->shape();
    const int axes = static_cast<int>(shape.size()), axis = canonical_axis(shape, own.integer("axis"));
    const auto& given = own.integers("offset");
    if (given.size() > 1 && static_cast<int>(given.size()) != axes - axis) {
      fail(ErrorKind::kField, "offset has ", given.size(), " values, but ", axes - axis,
           " axes are cropped (from axis ", axis, " of ", to_string(shape), " on): give one for all or one for each");
    }
    if (static_cast<int>(sizes.size()) < axes) {
      throw Error(ErrorKind::kShape,
                  join("`", bottom[1]->name, "` (", to_string(sizes), ") must have as many axes as `", bottom[0]->name,
                       "` (", to_string(shape), ")"),
                  1);
    }
    Shape cropped = shape;
    offset_.assign(axes, 0);
    for (int i = axis; i < axes; ++i) {
      if (!given.empty()) offset_[i] = given.size() == 1 ? given[0] : given[i - axis];
      cropped[i] = sizes[i];
      if (offset_[i] + sizes[i] <= shape[i]) continue;
      throw Error(ErrorKind::kShape,
                  join("along axis ", i, " `", bottom[0]->name, "` (", to_string(shape), ") has ", shape[i],
                       " values, too few for ", sizes[i], " (of `", bottom[1]->name, "`) at offset ", offset_[i]),
                  0);
    }
    top[0]->reshape(cropped);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    for_rows(bottom[0]->shape(), top[0]->shape(),
             [=](int64_t from, int64_t to, int64_t floats) { std::copy(x + from, x + from + floats, y + to); });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[1]) bottom[1]->diff.zero();
    if (!propagate_down[0]) return;
    bottom[0]->diff.zero();
    const float* dy = top[0]->diff.read();
    float* dx = bottom[0]->diff.write();
    for_rows(bottom[0]->shape(), top[0]->shape(),
             [=](int64_t to, int64_t from, int64_t floats) { std::copy(dy + from, dy + from + floats, dx + to); });
  }

 private:
  // Calls body(first float in the bottom, first in the top, floats) for each row along the last axis.
  template <typename Body>
  void for_rows(const Shape& whole, const Shape& part, const Body& body) const {
    const int last = static_cast<int>(whole.size()) - 1;
    const int64_t floats = part[last];
    parallel_for(count(part, 0, last), std::max<int64_t>(kElementGrain / std::max<int64_t>(floats, 1), 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) {
                     int64_t at = offset_[last], stride = whole[last], rest = row;
                     for (int axis = last - 1; axis >= 0; --axis) {
                       at += (offset_[axis] + rest % part[axis]) * stride;
                       stride *= whole[axis];
                       rest /= part[axis];
                     }
                     body(at, row * floats, floats);
                   }
                 });
  }

  std::vector<int64_t> offset_;  // along each axis
};

REGISTER_LAYER(CropLayer, LayerSpec("Crop", "the part of a blob that is as large as another one")
                              .messages({"crop_param"})
                              .positional({"axis", "offset"})
                              .bottoms(2, 2)
                              .named({"values", "sizes"}));

}  // namespace sparknet
