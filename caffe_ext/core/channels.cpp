#include "core/channels.h"

#include "core/dnnl_util.h"
#include "core/error.h"

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

Shape covered_axes(const Message& fields, const Shape& bottom) {
  const int64_t num_axes = fields.integer("num_axes");
  if (num_axes < -1) {
    fail(ErrorKind::kField, "num_axes must be -1 (to the last axis) or at least 0, not ", num_axes);
  }
  if (num_axes == 0) return {};
  const int axis = canonical_axis(bottom, fields.integer("axis"));
  const auto axes = static_cast<int64_t>(bottom.size());
  const int64_t end = num_axes == -1 ? axes : axis + num_axes;
  if (end > axes) {
    fail(ErrorKind::kField, "axis ", axis, " and num_axes ", num_axes, " reach beyond the bottom's ", axes, " axes (",
         to_string(bottom), ")");
  }
  return {bottom.begin() + axis, bottom.begin() + end};
}

int fit_axes(const Message& fields, const Shape& part, const Shape& bottom, const char* what, int blamed) {
  const int axis = part.empty() ? 0 : canonical_axis(bottom, fields.integer("axis"));
  const size_t end = axis + part.size();
  if (end <= bottom.size() && std::equal(part.begin(), part.end(), bottom.begin() + axis)) return axis;
  throw Error(ErrorKind::kShape,
              join(what, " of shape ", to_string(part), " do not fit the bottom ", to_string(bottom), " from axis ",
                   axis, " on"),
              blamed);
}

ChannelStatistics channel_statistics(const ChannelView& view, const float* values) {
  // Of each row, while it is in the cache; then of the rows together (Chan, Golub and LeVeque, 1979).
  std::vector<float> row_means(view.rows() * view.block), row_squares(view.rows() * view.block);
  for_each_row(view, [&](int64_t first, int64_t channel) {
    float* mean = row_means.data() + first / view.inner;
    sum_row(view, first, channel, [=](int64_t at, int64_t) { return values[at]; }, mean);
    for (int64_t lane = 0; lane < view.block; ++lane) mean[lane] /= static_cast<float>(view.inner);
    const auto centred_square = [=](int64_t at, int64_t lane) {
      const float centred = values[at] - mean[lane];
      return centred * centred;
    };
    sum_row(view, first, 0, centred_square, row_squares.data() + first / view.inner);
  });
  ChannelStatistics result;
  const double rows = static_cast<double>(view.outer), length = static_cast<double>(view.inner);
  for (int64_t channel = 0; channel < view.channels(); ++channel) {
    double mean = 0.0, squares = 0.0;
    for (int64_t row = 0; row < view.outer; ++row) mean += row_means[row * view.channels() + channel];
    mean /= rows;
    for (int64_t row = 0; row < view.outer; ++row) {
      const double apart = row_means[row * view.channels() + channel] - mean;
      squares += row_squares[row * view.channels() + channel] + length * apart * apart;
    }
    result.mean.push_back(static_cast<float>(mean));
    result.variance.push_back(static_cast<float>(squares / (rows * length)));
  }
  return result;
}

std::vector<float> total(const ChannelView& view, const std::vector<float>& rows) {
  // Double, since there may be many rows.
  std::vector<double> totals(view.channels(), 0.0);
  for (int64_t outer = 0; outer < view.outer; ++outer) {
    for (int64_t channel = 0; channel < view.channels(); ++channel) {
      totals[channel] += rows[outer * view.channels() + channel];
    }
  }
  return {totals.begin(), totals.end()};
}

std::vector<float> padded_channels(const ChannelView& view, const float* values, int64_t count) {
  std::vector<float> padded(values, values + count);
  padded.resize(view.channels(), 0.0f);
  return padded;
}

}  // namespace sparknet
