#include "core/parallel.h"
#include "core/regions.h"

namespace sparknet {

// Position-sensitive pooling (Dai et al., "R-FCN: Object detection via region-based fully convolutional networks", NIPS
// 2016): the mean of each cell of a group_size × group_size grid laid over each region, where each cell of each of the
// output_dim outputs reads a channel of its own.
//
// As in its fork of Caffe (github.com/daijifeng001/caffe-rfcn): corners are rounded, then scaled; a region is at least
// 0.1 wide and high; cells are whole places, clipped to the map. An empty cell is 0. The regions' gradient is 0.
class PSROIPoolingLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& fields = param().message("psroi_pooling_param");
    for (const char* field : {"output_dim", "group_size", "spatial_scale"}) {
      if (!fields.has(field)) fail(ErrorKind::kField, field, " is missing");
    }
    for (const char* field : {"output_dim", "group_size"}) {
      if (fields.integer(field) < 1) fail(ErrorKind::kField, field, " must be at least 1");
    }
    outputs_ = fields.integer("output_dim");
    group_ = fields.integer("group_size");
    scale_ = read_spatial_scale(fields);
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    check_region_bottoms(bottom);
    const int64_t channels = bottom[0]->shape()[1];
    const int64_t wanted = count({outputs_, group_, group_});
    if (channels != wanted) {
      throw Error(
          ErrorKind::kShape,
          join("`", bottom[0]->name, "` must have output_dim × group_size² = ", wanted, " channels, not ", channels),
          0);
    }
    top[0]->reshape({bottom[1]->shape()[0], outputs_, group_, group_});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    regions_ = read_regions(bottom);
    pooled_ = bottom[0]->shape();
    const int64_t width = bottom[0]->shape()[3];
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    for_each_cell(bottom[0]->shape(), [&](int64_t plane, int64_t output, Span vertical, Span horizontal) {
      float sum = 0.0f;
      for (int64_t h = vertical.begin; h < vertical.end; ++h) {
        for (int64_t w = horizontal.begin; w < horizontal.end; ++w) sum += x[plane + h * width + w];
      }
      const int64_t area = vertical.size() * horizontal.size();
      y[output] = area == 0 ? 0.0f : sum / static_cast<float>(area);
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[1]) bottom[1]->diff.zero();
    if (!propagate_down[0]) return;
    if (bottom[0]->shape() != pooled_ || static_cast<int64_t>(regions_.size()) != top[0]->shape()[0]) {
      fail(ErrorKind::kState, "backward needs a forward pass before it");
    }
    const int64_t width = bottom[0]->shape()[3];
    const float* dy = top[0]->diff.read();
    bottom[0]->diff.zero();
    float* dx = bottom[0]->diff.write();
    for_each_cell(bottom[0]->shape(), [&](int64_t plane, int64_t output, Span vertical, Span horizontal) {
      const float share = dy[output] / static_cast<float>(std::max<int64_t>(vertical.size() * horizontal.size(), 1));
      for (int64_t h = vertical.begin; h < vertical.end; ++h) {
        for (int64_t w = horizontal.begin; w < horizontal.end; ++w) dx[plane + h * width + w] += share;
      }
    });
  }

 private:
  // Calls body(first float of the plane read, output index, rows, columns) for every output, bottom channels in
  // parallel: no two threads write to one plane.
  template <typename Body>
  void for_each_cell(const Shape& shape, const Body& body) const {
    const int64_t cells = group_ * group_, channels = outputs_ * cells;
    parallel_for(channels, 1, [&](int64_t begin, int64_t end) {
      for (size_t n = 0; n < regions_.size(); ++n) {
        const Region& region = regions_[n];
        const float left = std::round(region.x1) * scale_, right = (std::round(region.x2) + 1.0f) * scale_;
        const float above = std::round(region.y1) * scale_, below = (std::round(region.y2) + 1.0f) * scale_;
        const float w = std::max(right - left, 0.1f) / static_cast<float>(group_);
        const float h = std::max(below - above, 0.1f) / static_cast<float>(group_);
        for (int64_t c = begin; c < end; ++c) {
          const auto i = static_cast<float>(c % cells / group_), j = static_cast<float>(c % group_);
          body((region.image * channels + c) * shape[2] * shape[3], static_cast<int64_t>(n) * channels + c,
               clipped_span(i * h + above, (i + 1.0f) * h + above, shape[2]),
               clipped_span(j * w + left, (j + 1.0f) * w + left, shape[3]));
        }
      }
    });
  }

  int64_t outputs_ = 0, group_ = 0;
  float scale_ = 1.0f;
  std::vector<Region> regions_;  // of the last forward pass
  Shape pooled_;                 // of its maps
};

REGISTER_LAYER(PSROIPoolingLayer, LayerSpec("PSROIPooling", "means of a grid over each region, each of its own channel")
                                      .messages({"psroi_pooling_param"})
                                      .positional({"output_dim", "group_size", "spatial_scale"})
                                      .bottoms(2, 2)
                                      .named({"maps", "regions"}));

}  // namespace sparknet
