#include <algorithm>
#include <memory>
#include <vector>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// Cuts its bottom along `axis` (in old files: slice_dim) into as many tops: at each `slice_point`, or without any into
// equal parts. A single top is the bottom itself, data and gradient shared, as in Caffe. Tops that are one piece of the
// bottom (all axes before `axis` are 1) are read where they lie in it, and not copied.
class SliceLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("slice_param");
    if (own.has("axis") && own.has("slice_dim")) fail(ErrorKind::kField, "give axis or slice_dim, not both");
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Message& own = param().message("slice_param");
    const Shape& shape = bottom[0]->shape();
    axis_ = own.has("slice_dim") ? canonical_axis(shape, own.integer("slice_dim"), "slice_dim")
                                 : canonical_axis(shape, own.integer("axis"));
    const std::vector<int64_t> ends = ends_of_parts(own.integers("slice_point"), shape, top.size());
    Shape part = shape;
    int64_t begin = 0;
    for (size_t i = 0; i < top.size(); ++i) {
      part[axis_] = ends[i] - begin;
      top[i]->reshape(part);
      begin = ends[i];
    }
    if (top.size() == 1) {
      top[0]->data.share(bottom[0]->data);
      top[0]->diff.share(bottom[0]->diff);
    }
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (top.size() == 1 || lend(*bottom[0], top)) return;
    const float* from = bottom[0]->data.read();
    std::vector<float*> to;
    for (Blob* blob : top) to.push_back(blob->data.overwrite());
    for_pieces(bottom[0]->shape(), top, [&](int64_t i, int64_t at, int64_t from_at, int64_t floats) {
      std::copy(from + from_at, from + from_at + floats, to[i] + at);
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (top.size() == 1 || !propagate_down[0]) return;
    float* to = bottom[0]->diff.overwrite();
    std::vector<const float*> from;
    for (const Blob* blob : top) from.push_back(blob->diff.read());
    for_pieces(bottom[0]->shape(), top, [&](int64_t i, int64_t at, int64_t to_at, int64_t floats) {
      std::copy(from[i] + at, from[i] + at + floats, to + to_at);
    });
  }

 private:
  // Whether the tops' values are parts of the bottom's from here on.
  bool lend(const Blob& bottom, const Blobs& top) const {
    const std::shared_ptr<float> whole = bottom.data.share_as(nullptr);
    if (count(bottom.shape(), 0, axis_) != 1 || !whole) return false;
    int64_t begin = 0;
    for (Blob* blob : top) {
      if (!blob->data.adopt({whole, whole.get() + begin}, nullptr)) return false;
      begin += blob->count();
    }
    return true;
  }

  // Where each part ends along the axis.
  std::vector<int64_t> ends_of_parts(const std::vector<int64_t>& points, const Shape& shape, size_t parts) const {
    const int64_t extent = shape[axis_];
    const auto wanted = static_cast<int64_t>(parts);
    std::vector<int64_t> ends;
    if (points.empty()) {
      if (extent % wanted != 0) {
        fail(ErrorKind::kShape, "axis ", axis_, " of the bottom (", to_string(shape), ") cannot be cut into ", wanted,
             " equal parts: give slice_point");
      }
      for (int64_t i = 1; i <= wanted; ++i) ends.push_back(extent / wanted * i);
      return ends;
    }
    if (points.size() + 1 != parts) {
      fail(ErrorKind::kField, points.size(), " values of slice_point make ", points.size() + 1,
           " parts, but there are ", parts, " tops");
    }
    int64_t before = 0;
    for (const int64_t point : points) {
      if (point <= before) {
        fail(ErrorKind::kField, "slice_point must increase and begin above 0: ", point, " comes after ", before);
      }
      if (point > extent) {
        fail(ErrorKind::kShape, "slice_point ", point, " is beyond the ", extent, " values of axis ", axis_,
             " of the bottom (", to_string(shape), ")");
      }
      ends.push_back(before = point);
    }
    ends.push_back(extent);
    return ends;
  }

  // Calls body(top, first float in that top, first float in the bottom, floats) for all contiguous pieces.
  template <typename Body>
  void for_pieces(const Shape& whole, const Blobs& top, const Body& body) const {
    const int axes = static_cast<int>(whole.size());
    const int64_t outer = count(whole, 0, axis_), inner = count(whole, axis_, axes);
    const auto parts = static_cast<int64_t>(top.size());
    std::vector<int64_t> start, size;
    int64_t at = 0;
    for (const Blob* blob : top) {
      start.push_back(at);
      size.push_back(count(blob->shape(), axis_, axes));
      at += size.back();
    }
    const int64_t grain = std::max<int64_t>(1, kElementGrain * parts / std::max<int64_t>(inner, 1));
    parallel_for(outer * parts, grain, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t row = k / parts, i = k % parts;
        body(i, row * size[i], row * inner + start[i], size[i]);
      }
    });
  }

  int axis_ = 1;
};

REGISTER_LAYER(SliceLayer,
               LayerSpec("Slice", "cuts a blob along an axis").messages({"slice_param"}).tops(1, LayerSpec::kAny));

}  // namespace sparknet
