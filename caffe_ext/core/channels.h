// Arrays as layers see them that treat all values of a channel alike (BatchNorm, Scale): one loop for row-major and for
// oneDNN's blocked layouts.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "core/message.h"
#include "core/parallel.h"
#include "core/tensor.h"

namespace sparknet {

// [outer][blocks][inner][block] floats: the value at (o, b, i, lane) belongs to channel b * block + lane.
struct ChannelView {
  int64_t outer = 1, blocks = 1, inner = 1, block = 1;
  LayoutPtr layout;  // in which the array is read and written

  // With the channels that pad the last block.
  int64_t channels() const { return blocks * block; }
  int64_t row() const { return inner * block; }
  int64_t rows() const { return outer * blocks; }

  // The tensor as it lies, where each value of axis `axis` is a channel.
  static ChannelView of_axis(const Tensor& tensor, int axis);
  // Row-major, where the axes [begin, end) together are the channel.
  static ChannelView of_axes(const Shape& shape, int begin, int end);
};

// The extents of the bottom's axes [axis, axis + num_axes) that a ScaleParameter or BiasParameter names: those of what
// is learned for them. num_axes -1: to the last axis; 0: none, a single number.
Shape covered_axes(const Message& fields, const Shape& bottom);
// The axis of the bottom at which an array of shape `part` begins to cover it, `fields.axis` or 0 for a scalar. Where
// it does not fit, an Error(kShape) that calls it `what` and blames bottom `blamed`.
int fit_axes(const Message& fields, const Shape& part, const Shape& bottom, const char* what, int blamed);

// A value per channel, followed by zeros for the channels that are padding.
std::vector<float> padded_channels(const ChannelView& view, const float* values, int64_t count);

// Calls body(offset, channel) for the first value of each row of view.row() values; rows run in parallel.
template <typename Body>
void for_each_row(const ChannelView& view, const Body& body) {
  parallel_for(view.rows(), std::max<int64_t>(kElementGrain / std::max<int64_t>(view.row(), 1), 1),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) {
                   body(row * view.row(), row % view.blocks * view.block);
                 }
               });
}

// Calls body(offset, channel) for every value. Bodies write nothing but values at their own offset: the loops are
// vectorised on that promise.
template <typename Body>
void for_each_value(const ChannelView& view, const Body& body) {
  constexpr int64_t kLanes = 16;
  for_each_row(view, [&](int64_t first, int64_t channel) {
    if (view.block == 1) {
#pragma omp simd
      for (int64_t i = 0; i < view.inner; ++i) body(first + i, channel);
    } else if (view.block == kLanes) {
      for (int64_t i = 0; i < view.inner; ++i) {
#pragma omp simd
        for (int64_t lane = 0; lane < kLanes; ++lane) body(first + i * kLanes + lane, channel + lane);
      }
    } else {
      for (int64_t i = 0; i < view.inner; ++i) {
#pragma omp simd
        for (int64_t lane = 0; lane < view.block; ++lane) body(first + i * view.block + lane, channel + lane);
      }
    }
  });
}

// The sums of value(offset, channel) over one row, which begins at `first`: one for each of its view.block channels.
template <typename Value>
void sum_row(const ChannelView& view, int64_t first, int64_t channel, const Value& value, float* sums) {
  constexpr int64_t kLanes = 16;
  if (view.block == 1) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < view.inner; ++i) sum += value(first + i, channel);
    *sums = sum;
  } else if (view.block == kLanes) {
    std::array<float, kLanes> lanes{};
    for (int64_t i = 0; i < view.inner; ++i) {
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += value(first + i * kLanes + lane, channel + lane);
    }
    std::copy(lanes.begin(), lanes.end(), sums);
  } else {
    std::fill_n(sums, view.block, 0.0f);
    for (int64_t i = 0; i < view.inner; ++i) {
#pragma omp simd
      for (int64_t lane = 0; lane < view.block; ++lane) {
        sums[lane] += value(first + i * view.block + lane, channel + lane);
      }
    }
  }
}

// Of each channel, the sum over its rows of what is given for each lane of each row.
std::vector<float> total(const ChannelView& view, const std::vector<float>& rows);

// The sum of value(offset, channel) over each channel. The order of summation depends on the view alone.
template <typename Value>
std::vector<float> channel_sums(const ChannelView& view, const Value& value) {
  std::vector<float> row_sums(view.rows() * view.block);
  for_each_row(view, [&](int64_t first, int64_t channel) {
    sum_row(view, first, channel, value, row_sums.data() + first / std::max<int64_t>(view.inner, 1));
  });
  return total(view, row_sums);
}

// Of each channel; the variance is the biased one.
struct ChannelStatistics {
  std::vector<float> mean, variance;
};

// Of an array that is not empty; 0 for channels that are padding. The array is read from memory once.
ChannelStatistics channel_statistics(const ChannelView& view, const float* values);

}  // namespace sparknet
