// The windows that Convolution, Deconvolution and Im2col slide over spatial axes, as their ConvolutionParameter says.
#pragma once

#include "core/message.h"
#include "core/tensor.h"

namespace sparknet {

struct Window {
  int axis = 1;                         // of the channels: all axes before it are batch, all after it spatial
  Shape kernel, stride, pad, dilation;  // a value for each spatial axis

  Window() = default;
  // Error(kField) where settings are missing, exclude each other or make no sense for this bottom; Error(kShape) for
  // more than 3 spatial axes.
  Window(const Message& fields, const Shape& bottom);

  int axes() const { return static_cast<int>(kernel.size()); }
  // What a kernel covers: dilation (kernel - 1) + 1 along each axis.
  Shape reach() const;
  // Error(kShape) unless the bottom has as many axes as the one that the windows were made for.
  void check_axes(const Shape& bottom) const;
  // How many windows fit into each of the bottom's spatial axes: (size + 2 pad - reach) / stride + 1, rounded down.
  // Error(kShape) where none does.
  Shape places(const Shape& bottom) const;
  // The opposite: the spatial extents into which as many windows fit as the bottom has values. Error(kShape) where
  // padding leaves nothing.
  Shape spread(const Shape& bottom) const;
};

}  // namespace sparknet
