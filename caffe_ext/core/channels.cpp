#include "core/channels.h"

#include "core/dnnl_util.h"

namespace sparknet {

ChannelView ChannelView::of_axes(const Shape& shape, int begin, int end) {
  ChannelView view;
  view.outer = count(shape, 0, begin);
  view.blocks = count(shape, begin, end);
  view.inner = count(shape, end, static_cast<int>(shape.size()));
  if (shape.empty()) return view;
  if (view.blocks == 1) {
    // One channel: any cut into rows will do.
    view.inner = count(shape, 1, static_cast<int>(shape.size()));
    view.outer = shape[0];
  } else if (view.inner == 1) {
    // Channels that lie side by side are one block, so that rows are long; but not all in one row.
    view.block = view.outer == 1 ? count(shape, begin + 1, end) : view.blocks;
    view.blocks = view.outer == 1 ? shape[begin] : 1;
  }
  return view;
}

ChannelView ChannelView::of_axis(const Tensor& tensor, int axis) {
  const Shape& shape = tensor.shape();
  const ChannelView plain = of_axes(shape, axis, axis + 1);
  const LayoutPtr layout = tensor.layout();
  if (!layout || layout->desc.get_dims() != shape || axis != 1) return plain;

  // N × C × spatial with the channels split into blocks, as nChw16c has them, or with the channels last (no such split:
  // one block of all channels).
  const auto& desc = layout->desc;
  const auto blocks = desc.get_inner_blks();
  const auto padded = desc.get_padded_dims();
  const bool split = blocks.size() == 1 && desc.get_inner_idxs()[0] == 1;
  if (!split && !blocks.empty()) return plain;
  ChannelView view;
  view.outer = shape[0];
  view.block = split ? blocks[0] : padded[1];
  view.blocks = padded[1] / view.block;
  view.inner = count(shape, 2, static_cast<int>(shape.size()));
  view.layout = layout;

  const auto strides = desc.get_strides();
  int64_t expected = view.block;
  for (int spatial = static_cast<int>(shape.size()) - 1; spatial >= 2; --spatial) {
    if (strides[spatial] != expected || padded[spatial] != shape[spatial]) return plain;
    expected *= shape[spatial];
  }
  if (view.blocks > 1 && strides[1] != expected) return plain;
  if (padded[0] != shape[0] || strides[0] != expected * view.blocks) return plain;
  return view;
}

std::vector<float> padded_channels(const ChannelView& view, const float* values, int64_t count) {
  std::vector<float> padded(values, values + count);
  padded.resize(view.channels(), 0.0f);
  return padded;
}

}  // namespace sparknet
