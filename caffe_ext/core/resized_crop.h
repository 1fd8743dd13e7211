// Parts of images, scaled to one size.
#pragma once

#include <cstdint>

#include "core/message.h"
#include "core/picture.h"
#include "core/range.h"

namespace sparknet {

// As torchvision's RandomResizedCrop (Szegedy et al., "Going deeper with convolutions", CVPR 2015): a rectangle whose
// area and proportions are drawn at random; after ten that do not fit into the image the largest in the middle whose
// proportions are allowed.
class RandomResizedCrop {
 public:
  // `param` is a RandomResizedCropParameter. Throws Error(kField).
  explicit RandomResizedCrop(const Message& param);

  // A part of an image of that size, a function of the seed and the row.
  Region draw(uint64_t seed, int64_t row, int64_t height, int64_t width) const;

 private:
  Range scale_, ratio_;
};

// The part `region` of the image, scaled to channels × height × width, by linear interpolation; where it shrinks, over
// as many pixels as become one, as Pillow does. Pixels outside of the region do not count.
void resize(const Picture<float>& image, const Region& region, int64_t height, int64_t width, float* out);

}  // namespace sparknet
