#include <cfloat>

#include "core/parallel.h"
#include "core/regions.h"

namespace sparknet {

// The maximum of each cell of a pooled_h × pooled_w grid laid over each region (Girshick, "Fast R-CNN", ICCV 2015).
//
// As in its fork of Caffe (github.com/rbgirshick/caffe-fast-rcnn): corners are scaled, then rounded, halves away from
// 0; a region has at least one place; cells overlap where sizes do not divide, and are clipped to the map. An empty
// cell is 0. The first of equal maxima gets the gradient; the regions' is 0.
class ROIPoolingLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& fields = param().message("roi_pooling_param");
    for (const char* field : {"pooled_h", "pooled_w"}) {
      if (fields.integer(field) < 1) fail(ErrorKind::kField, field, " must be at least 1");
    }
    rows_ = fields.integer("pooled_h");
    columns_ = fields.integer("pooled_w");
    scale_ = read_spatial_scale(fields);
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    check_region_bottoms(bottom);
    top[0]->reshape({bottom[1]->shape()[0], bottom[0]->shape()[1], rows_, columns_});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const std::vector<Region> regions = read_regions(bottom);
    const Shape& shape = bottom[0]->shape();
    const int64_t height = shape[2], width = shape[3];
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    pooled_ = shape;
    chosen_.resize(top[0]->count());
    image_.clear();
    for (const Region& region : regions) image_.push_back(region.image);
    for_each_plane(shape[1], static_cast<int64_t>(regions.size()), [&](int64_t n, int64_t plane, int64_t output) {
      const float* values = x + plane * height * width;
      const float left = std::round(regions[n].x1 * scale_), above = std::round(regions[n].y1 * scale_);
      const float w = std::max(std::round(regions[n].x2 * scale_) - left + 1.0f, 1.0f) / static_cast<float>(columns_);
      const float h = std::max(std::round(regions[n].y2 * scale_) - above + 1.0f, 1.0f) / static_cast<float>(rows_);
      for (int64_t i = 0; i < rows_; ++i) {
        const Span vertical = cell(above, h, i, height);
        for (int64_t j = 0; j < columns_; ++j, ++output) {
          const Span horizontal = cell(left, w, j, width);
          float best = -FLT_MAX;
          int64_t place = -1;
          for (int64_t at_h = vertical.begin; at_h < vertical.end; ++at_h) {
            for (int64_t at_w = horizontal.begin; at_w < horizontal.end; ++at_w) {
              const int64_t at = at_h * width + at_w;
              if (values[at] > best) best = values[at], place = at;
            }
          }
          y[output] = vertical.size() * horizontal.size() == 0 ? 0.0f : best;
          chosen_[output] = static_cast<int32_t>(place);
        }
      }
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[1]) bottom[1]->diff.zero();
    if (!propagate_down[0]) return;
    const Shape& shape = bottom[0]->shape();
    if (shape != pooled_ || static_cast<int64_t>(chosen_.size()) != top[0]->count()) {
      fail(ErrorKind::kState, "backward needs a forward pass before it");
    }
    const float* dy = top[0]->diff.read();
    bottom[0]->diff.zero();
    float* dx = bottom[0]->diff.write();
    for_each_plane(shape[1], static_cast<int64_t>(image_.size()), [&](int64_t, int64_t plane, int64_t output) {
      for (int64_t end = output + rows_ * columns_; output < end; ++output) {
        if (chosen_[output] >= 0) dx[plane * shape[2] * shape[3] + chosen_[output]] += dy[output];
      }
    });
  }

 private:
  // The places of cell `index` of a region that begins at `first`: rounded within the region, then moved.
  static Span cell(float first, float size, int64_t index, int64_t extent) {
    const auto number = static_cast<float>(index);
    return clipped_span(first + std::floor(number * size), first + std::ceil((number + 1.0f) * size), extent);
  }

  // Calls body(region, its channel's plane of the bottom, first output) for every channel of every region; channels in
  // parallel, so that no two threads write to one plane.
  template <typename Body>
  void for_each_plane(int64_t channels, int64_t regions, const Body& body) const {
    parallel_for(channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = 0; n < regions; ++n) {
        for (int64_t c = begin; c < end; ++c) {
          body(n, image_[n] * channels + c, (n * channels + c) * rows_ * columns_);
        }
      }
    });
  }

  int64_t rows_ = 0, columns_ = 0;
  float scale_ = 1.0f;
  Shape pooled_;                 // of the maps of the last forward pass
  std::vector<int64_t> image_;   // of each region of the last forward pass
  std::vector<int32_t> chosen_;  // of each output: the place in its plane of the element taken, -1 for none
};

REGISTER_LAYER(ROIPoolingLayer, LayerSpec("ROIPooling", "the maxima of a grid over each region of interest")
                                    .messages({"roi_pooling_param"})
                                    .positional({"pooled_h", "pooled_w", "spatial_scale"})
                                    .bottoms(2, 2)
                                    .named({"maps", "regions"}));

}  // namespace sparknet
