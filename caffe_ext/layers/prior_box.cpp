#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// The prior boxes of SSD (Liu et al., "SSD: Single shot multibox detector", ECCV 2016; github.com/weiliu89/caffe): at
// each place of the first bottom's map, for each min_size a square of that size, one of the size sqrt(min_size
// max_size) where there is a max_size, and for each aspect_ratio a (with 1 / a unless `flip` is false) a box of
// min_size sqrt(a) × min_size / sqrt(a). Top: 1 × 2 × 4 P, xmin, ymin, xmax, ymax of each box as shares of the image,
// then its variances, 0.1 unless `variance` says otherwise, once for all four or for each.
//
// The image has the second bottom's size unless img_size (img_h, img_w) is given; places lie `step` (step_h, step_w)
// pixels apart, else image / map, the first at `offset` steps. As in that fork sizes lose their fractions: its models
// for 512 × 512 give 35.84 and were trained with 35.
class PriorBoxLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& fields = param().message("prior_box_param");
    const auto &least = fields.reals("min_size"), &most = fields.reals("max_size");
    if (least.empty()) fail(ErrorKind::kField, "min_size is missing");
    if (!most.empty() && most.size() != least.size()) {
      fail(ErrorKind::kField, "max_size must be given once for each min_size: ", least.size(), " times, not ",
           most.size());
    }
    std::vector<double> ratios;
    const auto known = [&](double ratio) {
      return std::any_of(ratios.begin(), ratios.end(), [=](double other) { return std::fabs(ratio - other) < 1e-6; });
    };
    for (const double ratio : fields.reals("aspect_ratio")) {
      if (!(ratio > 0.0 && std::isfinite(ratio))) {
        fail(ErrorKind::kField, "aspect_ratio must be above 0, not ", ratio);
      }
      if (std::fabs(ratio - 1.0) < 1e-6 || known(ratio)) continue;
      ratios.push_back(ratio);
      if (fields.flag("flip")) ratios.push_back(1.0 / ratio);
    }
    for (size_t i = 0; i < least.size(); ++i) {
      const double size = whole_size(least[i], "min_size");
      sizes_.push_back({size, size});
      if (!most.empty()) {
        if (!(most[i] > least[i])) {
          fail(ErrorKind::kField, "max_size must be above min_size: ", most[i], " is not above ", least[i]);
        }
        const double between = std::sqrt(size * whole_size(most[i], "max_size"));
        sizes_.push_back({between, between});
      }
      for (const double ratio : ratios) sizes_.push_back({size * std::sqrt(ratio), size / std::sqrt(ratio)});
    }

    for (const double variance : fields.reals("variance")) {
      if (!(variance > 0.0)) fail(ErrorKind::kField, "variance must be above 0, not ", variance);
      variances_.push_back(static_cast<float>(variance));
    }
    if (variances_.empty()) variances_ = {0.1f};
    if (variances_.size() == 1) variances_.assign(4, variances_[0]);
    if (variances_.size() != 4)
      fail(ErrorKind::kField, "variance must be given once or 4 times, not ", variances_.size());
    image_ = pair(fields, "img_size", "img_h", "img_w");
    step_ = pair(fields, "step", "step_h", "step_w");
    offset_ = fields.real("offset");
    clip_ = fields.flag("clip");
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    for (int i = 0; i < static_cast<int>(bottom.size()); ++i) {
      const Shape& shape = bottom[i]->shape();
      if (shape.size() == 4 && shape[2] > 0 && shape[3] > 0) continue;
      throw Error(ErrorKind::kShape,
                  join("`", bottom[i]->name, "` must be N × C × H × W with H and W above 0, not ", to_string(shape)),
                  i);
    }
    const Shape& map = bottom[0]->shape();
    top[0]->reshape({1, 2, count({map[2], map[3], static_cast<int64_t>(sizes_.size()), 4})});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const Shape &map = bottom[0]->shape(), &data = bottom[1]->shape();
    const Size image = image_.h > 0 ? image_ : Size{static_cast<double>(data[3]), static_cast<double>(data[2])};
    const Size step =
        step_.h > 0 ? step_ : Size{image.w / static_cast<double>(map[3]), image.h / static_cast<double>(map[2])};
    float* to = top[0]->data.overwrite();
    for (int64_t h = 0; h < map[2]; ++h) {
      const double y = (static_cast<double>(h) + offset_) * step.h;
      for (int64_t w = 0; w < map[3]; ++w) {
        const double x = (static_cast<double>(w) + offset_) * step.w;
        for (const Size& size : sizes_) {
          *to++ = share((x - size.w / 2.0) / image.w);
          *to++ = share((y - size.h / 2.0) / image.h);
          *to++ = share((x + size.w / 2.0) / image.w);
          *to++ = share((y + size.h / 2.0) / image.h);
        }
      }
    }
    for (int64_t i = 0; i < top[0]->count() / 2; ++i) *to++ = variances_[i % 4];
  }

  // The boxes depend on shapes alone.
  void backward(const Blobs&, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (propagate_down[i]) bottom[i]->diff.zero();
    }
  }

 private:
  struct Size {
    double w, h;
  };

  static double whole_size(double value, const char* field) {
    if (!(value >= 1.0 && value < 2147483648.0)) fail(ErrorKind::kField, field, " must be at least 1, not ", value);
    return std::floor(value);
  }

  // `field` for both, or one of each; 0 for none.
  static Size pair(const Message& fields, const char* field, const char* field_h, const char* field_w) {
    const bool apart = fields.has(field_h) || fields.has(field_w);
    if (!apart && !fields.has(field)) return {0.0, 0.0};
    if (apart && fields.has(field)) {
      fail(ErrorKind::kField, field, " and ", field_h, "/", field_w, " exclude each other: keep one form");
    }
    const Size size = {number(fields, apart ? field_w : field), number(fields, apart ? field_h : field)};
    if (!(size.w > 0.0 && size.h > 0.0)) {
      fail(ErrorKind::kField, apart ? join(field_h, " and ", field_w) : field, " must be above 0");
    }
    return size;
  }

  static double number(const Message& fields, const std::string& field) {
    return field.rfind("img", 0) == 0 ? static_cast<double>(fields.integer(field)) : fields.real(field);
  }

  float share(double value) const { return static_cast<float>(clip_ ? std::clamp(value, 0.0, 1.0) : value); }

  std::vector<Size> sizes_;  // of the boxes at each place, in pixels
  std::vector<float> variances_;
  Size image_{}, step_{};  // 0: from the bottoms
  double offset_ = 0.5;
  bool clip_ = false;
};

REGISTER_LAYER(PriorBoxLayer, LayerSpec("PriorBox", "boxes of several sizes and shapes at each place of a map")
                                  .messages({"prior_box_param"})
                                  .positional({"min_size", "max_size", "aspect_ratio"})
                                  .bottoms(2, 2)
                                  .named({"map", "image"}));

}  // namespace sparknet
