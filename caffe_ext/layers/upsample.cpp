#include <algorithm>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// Larger maps, by one of two definitions that forks of Caffe have under this name; the number of bottoms tells which.
//
// With two, SegNet's (Badrinarayanan et al., "SegNet: A deep convolutional encoder-decoder architecture", PAMI 2017;
// github.com/alexgkendall/caffe-segnet): the second says for each value where it goes in its plane of the top, h *
// width + w, as the second top of a MAX Pooling does; the rest of the top is 0. Of several values for one place the
// last stays, and all get its gradient. The top is upsample_h × upsample_w, else `scale` (or scale_h, scale_w) times as
// large, less 1 with pad_out_h or pad_out_w, which go with scale 2.
//
// With one, YOLOv3's ports to Caffe: each value becomes a square of scale × scale.
class UpsampleLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    const Message& fields = param().message("upsample_param");
    placed_ = bottom.size() == 2;
    if (!placed_) {
      for (const char* field : {"upsample_h", "upsample_w", "pad_out_h", "pad_out_w"}) {
        if (fields.has(field)) {
          fail(ErrorKind::kField, field,
               " goes with a second bottom, the places of a MAX pooling's maxima; without it ",
               "each value is repeated `scale` times");
        }
      }
    }
    sized_ = pair_given(fields, "upsample_h", "upsample_w");
    if (sized_) {
      // Other sizes than given may stand beside them, as in SegNet's own files.
      height_ = fields.integer("upsample_h");
      width_ = fields.integer("upsample_w");
      if (height_ < 1 || width_ < 1) fail(ErrorKind::kField, "upsample_h and upsample_w must be at least 1");
      return;
    }
    const bool own = pair_given(fields, "scale_h", "scale_w");
    if (own && fields.has("scale")) {
      fail(ErrorKind::kField, "scale and scale_h/scale_w exclude each other: keep one form");
    }
    scale_h_ = fields.integer(own ? "scale_h" : "scale");
    scale_w_ = fields.integer(own ? "scale_w" : "scale");
    if (scale_h_ < 1 || scale_w_ < 1)
      fail(ErrorKind::kField, own ? "scale_h and scale_w" : "scale", " must be at least 1");
    pad_h_ = fields.flag("pad_out_h") ? 1 : 0;
    pad_w_ = fields.flag("pad_out_w") ? 1 : 0;
    if ((pad_h_ != 0 && scale_h_ != 2) || (pad_w_ != 0 && scale_w_ != 2)) {
      fail(ErrorKind::kField, "pad_out_h and pad_out_w go with scale 2 only");
    }
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.size() != 4) {
      fail(ErrorKind::kShape, "the bottom must have 4 axes (N × C × H × W), not ", to_string(shape));
    }
    if (placed_ && bottom[1]->shape() != shape) {
      throw Error(ErrorKind::kShape,
                  join("`", bottom[1]->name, "` (", to_string(bottom[1]->shape()), ") must have the shape of `",
                       bottom[0]->name, "` (", to_string(shape), ")"),
                  1);
    }
    top[0]->reshape({shape[0], shape[1], sized_ ? height_ : shape[2] * scale_h_ - pad_h_,
                     sized_ ? width_ : shape[3] * scale_w_ - pad_w_});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->data.read();
    if (placed_) {
      const int64_t inside = plane(bottom), outside = plane(top);
      check_places(*bottom[1], *top[0]);
      const float* places = bottom[1]->data.read();
      float* y = top[0]->data.overwrite();
      std::fill_n(y, top[0]->count(), 0.0f);
      for_each_plane(bottom, [=](int64_t n) {
        for (int64_t i = n * inside; i < (n + 1) * inside; ++i) y[n * outside + static_cast<int64_t>(places[i])] = x[i];
      });
    } else {
      float* y = top[0]->data.overwrite();
      for_each_copy(bottom, top, [=](int64_t from, int64_t to) { y[to] = x[from]; });
    }
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (placed_ && propagate_down[1]) bottom[1]->diff.zero();
    if (!propagate_down[0]) return;
    const float* dy = top[0]->diff.read();
    if (placed_) {
      const int64_t inside = plane(bottom), outside = plane(top);
      check_places(*bottom[1], *top[0]);
      const float* places = bottom[1]->data.read();
      float* dx = bottom[0]->diff.overwrite();
      for_each_plane(bottom, [=](int64_t n) {
        for (int64_t i = n * inside; i < (n + 1) * inside; ++i)
          dx[i] = dy[n * outside + static_cast<int64_t>(places[i])];
      });
    } else {
      bottom[0]->diff.zero();
      float* dx = bottom[0]->diff.write();
      for_each_copy(bottom, top, [=](int64_t to, int64_t from) { dx[to] += dy[from]; });
    }
  }

 private:
  static bool pair_given(const Message& fields, const char* a, const char* b) {
    if (fields.has(a) != fields.has(b)) {
      fail(ErrorKind::kField, fields.has(a) ? b : a, " is missing: ", a, " and ", b, " go together");
    }
    return fields.has(a);
  }

  static int64_t plane(const Blobs& blobs) { return blobs[0]->shape()[2] * blobs[0]->shape()[3]; }

  static void check_places(const Blob& places, const Blob& top) {
    const auto outside = static_cast<float>(top.shape()[2] * top.shape()[3]);
    const float* values = places.data.read();
    for (int64_t i = 0; i < places.count(); ++i) {
      if (values[i] >= 0.0f && values[i] < outside) continue;
      throw Error(ErrorKind::kData,
                  join("place ", values[i], " of `", places.name, "` is not in the top (", to_string(top.shape()),
                       "): upsample_h and upsample_w must be the sizes of the pooling's bottom"),
                  1);
    }
  }

  template <typename Body>
  static void for_each_plane(const Blobs& bottom, const Body& body) {
    const Shape& shape = bottom[0]->shape();
    parallel_for(shape[0] * shape[1], std::max<int64_t>(kElementGrain / std::max<int64_t>(plane(bottom), 1), 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t n = begin; n < end; ++n) body(n);
                 });
  }

  // Calls body(index in the bottom, in the top) for every value of the top.
  template <typename Body>
  void for_each_copy(const Blobs& bottom, const Blobs& top, const Body& body) const {
    const int64_t width = bottom[0]->shape()[3], rows = top[0]->shape()[2], columns = top[0]->shape()[3];
    const int64_t inside = plane(bottom);
    for_each_plane(bottom, [&](int64_t n) {
      for (int64_t h = 0; h < rows; ++h) {
        for (int64_t w = 0; w < columns; ++w) {
          body(n * inside + h / scale_h_ * width + w / scale_w_, (n * rows + h) * columns + w);
        }
      }
    });
  }

  bool placed_ = false, sized_ = false;
  int64_t height_ = 0, width_ = 0, scale_h_ = 1, scale_w_ = 1, pad_h_ = 0, pad_w_ = 0;
};

REGISTER_LAYER(UpsampleLayer, LayerSpec("Upsample", "values at the places they were pooled from, or each one repeated")
                                  .messages({"upsample_param"})
                                  .positional({"scale"})
                                  .bottoms(1, 2)
                                  .named({"values", "places"})
                                  .reads_bottom());

}  // namespace sparknet
