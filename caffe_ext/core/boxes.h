// Boxes, and what the layers of SSD do with them (Liu et al., "SSD: Single shot multibox detector", ECCV 2016, and its
// fork of Caffe, github.com/weiliu89/caffe): overlaps, offsets from prior boxes, matches, removal of duplicates.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/layer.h"

namespace sparknet {

// Corners as shares of the image's width and height.
struct Box {
  float xmin, ymin, xmax, ymax;

  // 0 where a corner is on the wrong side of the other.
  float area() const { return xmax < xmin || ymax < ymin ? 0.0f : (xmax - xmin) * (ymax - ymin); }
  bool inside_image() const { return xmin >= 0.0f && ymin >= 0.0f && xmax <= 1.0f && ymax <= 1.0f; }
};

// Intersection over union; 0 for boxes that at most touch.
float overlap(const Box& a, const Box& b);

// A box and how much each offset from it counts.
struct Prior {
  Box box;
  std::array<float, 4> variance;
};

// How a box is written as four offsets from a prior box.
class BoxCode {
 public:
  enum class Type { kCorner, kCenterSize, kCornerSize };

  // From code_type and `variance_field`, which says that offsets are not divided by variances.
  BoxCode(const Message& fields, const std::string& variance_field);

  // Error(kData) where a box that is divided by has no area.
  std::array<float, 4> encode(const Box& box, const Prior& prior) const;
  Box decode(const float* offsets, const Prior& prior) const;

  // Whether losses of offsets are yet to be divided by variances.
  bool variance_in_target() const { return variance_in_target_; }

 private:
  const Type type_;
  const bool variance_in_target_;
};

// The rows of PriorBox's top, 1 × 2 × 4 P: boxes, then variances.
std::vector<Prior> read_priors(const Blob& blob);

// The shapes that MultiBoxLoss and DetectionOutput ask for, with P prior boxes and C classes: locations N × 4 P (4 P C
// unless shared), scores N × P C, priors 1 × 2 × 4 P. Error(kShape) otherwise.
struct BoxShapes {
  int64_t images, priors, classes, location_classes;
};
BoxShapes check_box_shapes(const Blobs& bottom, const Message& fields);

// Of the boxes whose score is above `least`, the `most` best (all of them where it is negative), from the best down,
// without those that overlap a kept one by more than `threshold`; that becomes `eta` times itself with each kept box
// while it is above 0.5. Of equal scores the first counts as larger. Indices of boxes.
std::vector<int64_t> suppress(const std::vector<Box>& boxes, const std::vector<float>& scores, float least,
                              float threshold, float eta, int64_t most);

// Which truth each box stands for.
struct Matches {
  static constexpr int64_t kNone = -1, kIgnored = -2;
  std::vector<int64_t> truth;  // its index, or one of the above
  std::vector<float> overlap;  // with the truth, of unmatched ones the largest with any
};

// Each truth takes the box that overlaps it most, the best pairs first, each box only once; with `per_prediction`
// every other box then takes the truth that it overlaps most, by at least `threshold`. Boxes not wholly in the image
// are ignored if `ignore_outside`.
Matches match(const std::vector<Box>& boxes, const std::vector<Box>& truths, bool per_prediction, float threshold,
              bool ignore_outside);

}  // namespace sparknet
