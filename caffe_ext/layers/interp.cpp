#include <algorithm>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// Bilinear interpolation of each plane to another size, corners on corners (DeepLab's fork of Caffe, Chen et al.,
// "Semantic image segmentation with deep convolutional nets and fully connected CRFs", ICLR 2015; PSPNet, CVPR 2017).
//
// First a border is cut away: -pad_beg values above and to the left, -pad_end below and to the right. Of what is left,
// sizes s, the top has (s - 1) / shrink_factor + 1, or s + (s - 1) (zoom_factor - 1), or the one after the other where
// both are given; height × width only where neither is, or both are, as there.
class InterpLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& fields = param().message("interp_param");
    for (const char* field : {"pad_beg", "pad_end"}) {
      if (fields.integer(field) > 0) {
        fail(ErrorKind::kField, field, " must not be above 0 (it cuts away), not ", fields.integer(field));
      }
    }
    for (const char* field : {"shrink_factor", "zoom_factor"}) {
      if (fields.integer(field) < 1) fail(ErrorKind::kField, field, " must be at least 1");
    }
    begin_ = -fields.integer("pad_beg");
    end_ = -fields.integer("pad_end");
    const bool shrink = fields.has("shrink_factor"), zoom = fields.has("zoom_factor");
    sized_ = fields.has("height") && fields.has("width") && shrink == zoom;
    if (!sized_ && !shrink && !zoom) {
      fail(ErrorKind::kField, "the size is missing: height and width, or zoom_factor, or shrink_factor");
    }
    if (sized_ && (fields.integer("height") < 1 || fields.integer("width") < 1)) {
      fail(ErrorKind::kField, "height and width must be at least 1");
    }
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.size() != 4) {
      fail(ErrorKind::kShape, "the bottom must have 4 axes (N × C × H × W), not ", to_string(shape));
    }
    const Message& fields = param().message("interp_param");
    Shape result = {shape[0], shape[1]};
    for (int axis : {2, 3}) {
      const int64_t left = shape[axis] - begin_ - end_;
      if (left < 1) {
        fail(ErrorKind::kShape, "pad_beg and pad_end cut away ", begin_ + end_, " of ", shape[axis], " values of axis ",
             axis, " (", to_string(shape), ")");
      }
      const int64_t shrunk = (left - 1) / fields.integer("shrink_factor") + 1;
      result.push_back(sized_ ? fields.integer(axis == 2 ? "height" : "width")
                              : shrunk + (shrunk - 1) * (fields.integer("zoom_factor") - 1));
    }
    top[0]->reshape(result);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    for_each_value(*bottom[0], *top[0], [=](int64_t at, int64_t right, int64_t below, float h, float w, int64_t to) {
      const float above = (1.0f - w) * x[at] + w * x[at + right];
      const float under = (1.0f - w) * x[at + below] + w * x[at + below + right];
      y[to] = (1.0f - h) * above + h * under;
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float* dy = top[0]->diff.read();
    bottom[0]->diff.zero();
    float* dx = bottom[0]->diff.write();
    for_each_value(*bottom[0], *top[0], [=](int64_t at, int64_t right, int64_t below, float h, float w, int64_t to) {
      dx[at] += (1.0f - h) * (1.0f - w) * dy[to];
      dx[at + right] += (1.0f - h) * w * dy[to];
      dx[at + below] += h * (1.0f - w) * dy[to];
      dx[at + below + right] += h * w * dy[to];
    });
  }

 private:
  // Where value `index` of `outputs` lies among `inputs` values: at `first`, and `share` of the way to the next.
  struct Place {
    int64_t first, step;  // step: to the next value, 0 at the end
    float share;
  };

  static Place place(int64_t index, int64_t inputs, int64_t outputs) {
    const float ratio = outputs > 1 ? static_cast<float>(inputs - 1) / static_cast<float>(outputs - 1) : 0.0f;
    const float exact = ratio * static_cast<float>(index);
    const int64_t first = std::min(static_cast<int64_t>(exact), inputs - 1);
    return {first, first < inputs - 1 ? 1 : 0, exact - static_cast<float>(first)};
  }

  // Calls body(index in the bottom, distance to the value right of it, to the one below, shares of both ways, index in
  // the top) for every value of the top, planes in parallel.
  template <typename Body>
  void for_each_value(const Blob& bottom, const Blob& top, const Body& body) const {
    const Shape &from = bottom.shape(), &to = top.shape();
    const int64_t rows = to[2], columns = to[3], width = from[3];
    parallel_for(from[0] * from[1], std::max<int64_t>(kElementGrain / std::max<int64_t>(rows * columns, 1), 1),
                 [&](int64_t first, int64_t last) {
                   for (int64_t plane = first; plane < last; ++plane) {
                     for (int64_t i = 0; i < rows; ++i) {
                       const Place h = place(i, from[2] - begin_ - end_, rows);
                       const int64_t line = (plane * from[2] + begin_ + h.first) * width + begin_;
                       for (int64_t j = 0; j < columns; ++j) {
                         const Place w = place(j, width - begin_ - end_, columns);
                         body(line + w.first, w.step, h.step * width, h.share, w.share,
                              (plane * rows + i) * columns + j);
                       }
                     }
                   }
                 });
  }

  int64_t begin_ = 0, end_ = 0;  // values cut away at the two ends of each axis
  bool sized_ = false;
};

REGISTER_LAYER(InterpLayer, LayerSpec("Interp", "bilinear interpolation to another size")
                                .messages({"interp_param"})
                                .positional({"height", "width"}));

}  // namespace sparknet
