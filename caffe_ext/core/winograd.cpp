#include "core/winograd.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/machine.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/winograd_kernels.h"

namespace sparknet {

using winograd::kHalf;
using winograd::kLanes;
using winograd::Plane;
using Problem = Winograd::Problem;

namespace {

// So many tiles at a time: enough that reading the weights costs little, few enough that a thread's share stays in its
// caches.
constexpr int64_t kForwardTiles = 84;
constexpr int64_t kGradientTiles = 128;

constexpr int64_t kMostRows = 14;  // with two panels their sums take 28 of 32 registers
constexpr int64_t kPanels = 2;

int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Floats from point to point of `rows` rows each, an odd number of cache lines: a tile's points would fall into the
// same few lines of the cache if they were 4 KiB apart.
int64_t point_stride(int64_t rows) { return (rows | 1) * kLanes; }

using RowsKernel = void (*)(const float*, int64_t, int64_t, const float*, int64_t, float*, int64_t);

template <int kPanels, int... kRows>
constexpr std::array<RowsKernel, sizeof...(kRows)> rows_kernels(std::integer_sequence<int, kRows...>) {
  return {winograd::multiply_rows<kRows + 1, kPanels>...};
}

// [panels - 1][rows - 1]
constexpr std::array<RowsKernel, kMostRows> kRowsKernels[] = {
    rows_kernels<1>(std::make_integer_sequence<int, kMostRows>()),
    rows_kernels<2>(std::make_integer_sequence<int, kMostRows>())};

// One pass; template arguments say for which kernel.
template <int kPairs>
class Pass {
 public:
  explicit Pass(const Problem& problem)
      : problem_(problem),
        channel_blocks_(problem.channels / kLanes),
        output_blocks_(problem.outputs / kLanes),
        wide_{problem.groups * channel_blocks_ * problem.height * problem.width * kLanes, problem.height, problem.width,
              problem.down(), problem.across()},
        narrow_{problem.groups * output_blocks_ * problem.narrow_height() * problem.narrow_width() * kLanes,
                problem.narrow_height(), problem.narrow_width(), problem.down(), problem.across()} {}

  // Weights at the points: [group][point][block of outputs][channel][16].
  std::shared_ptr<float> transform(const float* weights, bool reversed) const {
    const std::shared_ptr<float> points = allocate(problem_.groups * kPoints * kernels());
    const int64_t area = problem_.kernel * problem_.kernel;
    // Reversed, what are channels here are outputs to the weights.
    const int64_t lane_stride = reversed ? area : problem_.channels * area;
    const int64_t input_stride = reversed ? problem_.outputs * area : area;
    parallel_for(problem_.groups * output_blocks_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t group = unit / output_blocks_, block = unit % output_blocks_;
        winograd::evaluate_kernels<kPairs>(weights + group * kernels() * area + block * kLanes * lane_stride,
                                           lane_stride, input_stride, reversed, problem_.channels,
                                           points.get() + group * kPoints * kernels() + block * panel(), kernels());
      }
    });
    return points;
  }

  void forward(const float* wide, const float* weights, const float* bias, bool rectify, float* narrow) const {
    const int64_t tiles = problem_.tiles();
    int64_t pieces = ceiling(tiles, kForwardTiles);
    while (pieces < tiles && pieces * problem_.groups % omp_get_max_threads() != 0) ++pieces;
    parallel_for(pieces * problem_.groups, 1, [&](int64_t begin, int64_t end) {
      const int64_t most = ceiling(tiles, pieces);
      const int64_t in_stride = point_stride(channel_blocks_ * most);
      const int64_t out_stride = point_stride(output_blocks_ * most);
      const std::shared_ptr<float> scratch = allocate(kPoints * (in_stride + out_stride));
      float *const in = scratch.get(), *const out = in + kPoints * in_stride;
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t group = unit / pieces, piece = unit % pieces;
        const int64_t first = tiles * piece / pieces, last = tiles * (piece + 1) / pieces, count = last - first;
        for (int64_t block = 0; block < channel_blocks_; ++block) {
          winograd::spread_tiles<kPairs>(wide_block(wide, group, block), wide_, problem_.pad_h, problem_.pad_w, first,
                                         last, in + block * count * kLanes, in_stride);
        }
        for (int point = 0; point < kPoints; ++point) {
          multiply(in + point * in_stride, count, weights + (group * kPoints + point) * kernels(),
                   out + point * out_stride);
        }
        for (int64_t block = 0; block < output_blocks_; ++block) {
          const float* const shift = bias == nullptr ? nullptr : bias + (group * output_blocks_ + block) * kLanes;
          winograd::collect_tiles<kPairs>(out + block * count * kLanes, out_stride, shift, rectify,
                                          narrow_block(narrow, group, block), narrow_, first, last);
        }
      }
    });
  }

  void add_gradients(const float* wide, const float* narrow, float* weights, bool fresh, float* bias) const {
    const int64_t tiles = problem_.tiles(), pieces = ceiling(tiles, kGradientTiles), most = ceiling(tiles, pieces);
    const int64_t in_stride = point_stride(channel_blocks_ * most);
    const int64_t out_stride = point_stride(output_blocks_ * most);
    const std::shared_ptr<float> scratch = allocate(kPoints * (in_stride + out_stride + kernels()));
    float *const in = scratch.get(), *const out = in + kPoints * in_stride, *const points = out + kPoints * out_stride;
    constexpr int64_t kParts = 4;  // of a piece, that threads may share it
    std::vector<float> sums(problem_.groups * problem_.outputs * kParts);
    for (int64_t group = 0; group < problem_.groups; ++group) {
      for (int64_t piece = 0; piece < pieces; ++piece) {
        const int64_t first = tiles * piece / pieces, count = tiles * (piece + 1) / pieces - first;
        parallel_for((channel_blocks_ + output_blocks_) * kParts, 1, [&](int64_t begin, int64_t end) {
          for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t part = unit % kParts, from = count * part / kParts, to = count * (part + 1) / kParts;
            const int64_t block = unit / kParts, output_block = block - channel_blocks_;
            if (output_block < 0) {
              winograd::spread_tiles<kPairs>(wide_block(wide, group, block), wide_, problem_.pad_h, problem_.pad_w,
                                             first + from, first + to, in + (block * count + from) * kLanes, in_stride);
            } else {
              const int64_t sum = (group * output_blocks_ + output_block) * kParts + part;
              winograd::evaluate_tiles<kPairs>(narrow_block(narrow, group, output_block), narrow_, first + from,
                                               first + to, out + (output_block * count + from) * kLanes, out_stride,
                                               sums.data() + sum * kLanes);
            }
          }
        });
        const int64_t columns = ceiling(output_blocks_, kPanels);
        parallel_for(kPoints * columns, 1, [&](int64_t begin, int64_t end) {
          for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t point = unit / columns, block = unit % columns * kPanels;
            add_products(in + point * in_stride, count, out + point * out_stride, block,
                         points + point * kernels() + block * panel(), piece > 0);
          }
        });
      }
      collect(points, weights + group * kernels() * problem_.kernel * problem_.kernel, fresh);
    }
    if (bias == nullptr) return;
    for (size_t i = 0; i < sums.size(); ++i) bias[i / kLanes / kParts * kLanes + i % kLanes] += sums[i];
  }

 private:
  static constexpr int kPoints = winograd::Line<kPairs>::kTile * winograd::Line<kPairs>::kTile;

  int64_t kernels() const { return problem_.channels * problem_.outputs; }
  int64_t panel() const { return problem_.channels * kLanes; }

  template <typename Float>
  Float* wide_block(Float* wide, int64_t group, int64_t block) const {
    return wide + (group * channel_blocks_ + block) * wide_.height * wide_.width * kLanes;
  }
  template <typename Float>
  Float* narrow_block(Float* narrow, int64_t group, int64_t block) const {
    return narrow + (group * output_blocks_ + block) * narrow_.height * narrow_.width * kLanes;
  }

  // At one point: out[block of outputs][tile][16] = in[block of channels][tile][16] times the weights.
  void multiply(const float* in, int64_t count, const float* weights, float* out) const {
    const int64_t steps = ceiling(count, kMostRows);
    for (int64_t block = 0; block < output_blocks_; block += kPanels) {
      const auto& kernels = kRowsKernels[std::min(kPanels, output_blocks_ - block) - 1];
      for (int64_t step = 0; step < steps; ++step) {
        const int64_t row = count * step / steps, rows = count * (step + 1) / steps - row;
        kernels[rows - 1](in + row * kLanes, count * kLanes, channel_blocks_, weights + block * panel(), panel(),
                          out + (block * count + row) * kLanes, count * kLanes);
      }
    }
  }

  // At one point: points[block of outputs][channel][16] (+)= the products of in and out, summed over tiles, for
  // kPanels blocks of outputs.
  void add_products(const float* in, int64_t count, const float* out, int64_t block, float* points, bool add) const {
    const auto kernel = block + 1 < output_blocks_ ? winograd::multiply_columns<2> : winograd::multiply_columns<1>;
    for (int64_t channel = 0; channel < problem_.channels; channel += kHalf) {
      kernel(in + channel / kLanes * count * kLanes + channel % kLanes, count, out + block * count * kLanes,
             count * kLanes, points + channel * kLanes, panel(), add);
    }
  }

  // The weights' gradient of one group from that at the points.
  void collect(const float* points, float* weights, bool fresh) const {
    const int64_t area = problem_.kernel * problem_.kernel;
    parallel_for(output_blocks_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        winograd::collect_kernels<kPairs>(points + block * panel(), kernels(), problem_.channels,
                                          weights + block * panel() * area, problem_.channels * area, area, fresh);
      }
    });
  }

  const Problem problem_;
  const int64_t channel_blocks_, output_blocks_;  // of one group
  const Plane wide_, narrow_;
};

// Calls body(pass) with the pass for the problem's kernel.
template <typename Body>
void with_pass(const Problem& problem, const Body& body) {
  if (problem.kernel == 3) {
    body(Pass<2>(problem));
  } else {
    body(Pass<3>(problem));
  }
}

}  // namespace

Problem Problem::reversed() const {
  Problem other = *this;
  std::swap(other.channels, other.outputs);
  other.height = narrow_height();
  other.width = narrow_width();
  other.pad_h = kernel - 1 - pad_h;
  other.pad_w = kernel - 1 - pad_w;
  return other;
}

bool Winograd::pays(const Problem& problem) {
  // The kernels are compiled for AVX-512, and without it would hardly pay.
  static const bool wide = isa().rfind("avx512", 0) == 0;
  if (!wide || (problem.kernel != 3 && problem.kernel != 5)) return false;
  if (problem.channels % kLanes != 0 || problem.outputs % kLanes != 0) return false;
  if (problem.pad_h >= problem.kernel || problem.pad_w >= problem.kernel) return false;
  // In multiplications; a channel's two transforms of a tile take as long as so many (measured).
  constexpr double kTransforms = 300;
  constexpr double kGain = 1.5;
  constexpr int64_t kFewestTiles = 32;  // below them reading the weights takes longest, of which there are more here
  const double kernels = static_cast<double>(problem.channels) * static_cast<double>(problem.outputs);
  const double area = static_cast<double>(problem.kernel * problem.kernel);
  const double points = static_cast<double>((problem.kernel + 3) * (problem.kernel + 3));
  const double outputs = static_cast<double>(problem.narrow_height() * problem.narrow_width());
  const double tiles = static_cast<double>(problem.down() * problem.across());
  const double transforms = kTransforms * points / 36 * static_cast<double>(problem.channels + problem.outputs);
  return problem.tiles() >= kFewestTiles && outputs * area * kernels >= kGain * tiles * (points * kernels + transforms);
}

void Winograd::forward(const float* wide, const Tensor& weights, const float* bias, bool rectify, bool keep,
                       float* narrow) {
  with_pass(problem_, [&](const auto& pass) {
    std::shared_ptr<float> points = kept_;
    const uint64_t version = weights.version();
    if (!points || version == 0 || version != version_) points = pass.transform(weights.read(), false);
    kept_ = keep ? points : nullptr;
    version_ = version;
    pass.forward(wide, points.get(), bias, rectify, narrow);
  });
}

void Winograd::backward(const float* narrow, const Tensor& weights, float* wide) const {
  with_pass(problem_.reversed(), [&](const auto& pass) {
    pass.forward(narrow, pass.transform(weights.read(), true).get(), nullptr, false, wide);
  });
}

void Winograd::add_gradients(const float* wide, const float* narrow, float* weights, bool fresh, float* bias) const {
  with_pass(problem_, [&](const auto& pass) { pass.add_gradients(wide, narrow, weights, fresh, bias); });
}

}  // namespace sparknet
