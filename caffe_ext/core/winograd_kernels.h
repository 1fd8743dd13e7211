// The inner loops of core/winograd.cpp: transforms of tiles and products of what they give, on vectors of 16 floats.
//
// Toom and Cook's algorithm multiplies two polynomials by their values at some points. Here those are 0, pairs ±p, and
// infinity (the leading coefficient): 2 pairs for tiles of 6, 3 for tiles of 8. A pair shares half of its arithmetic.
// The points are those for which float32 loses least among many tried; with integers (±1, ±2) as in the paper tiles of
// 6 lose twice as much.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx512f")
#endif

namespace sparknet::winograd {

constexpr int kLanes = 16;
constexpr int kOutputs = 4;  // of a tile, along each axis

typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef float Values __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

#define SPARKNET_INLINE inline __attribute__((always_inline))

SPARKNET_INLINE Vector load(const float* values) { return *reinterpret_cast<const Values*>(values); }
SPARKNET_INLINE void store(float* values, Vector vector) { *reinterpret_cast<Values*>(values) = vector; }

template <int kPairs>
struct Pairs;

template <>
struct Pairs<2> {
  static constexpr double points[] = {0.70710678118654752, 1.4142135623730950};
  static constexpr double squares[] = {0.5, 2.0};
};

template <>
struct Pairs<3> {
  static constexpr double points[] = {0.5, 1.0, 2.0};
  static constexpr double squares[] = {0.25, 1.0, 4.0};
};

// The numbers in the transforms' matrices.
template <int kPairs>
struct Matrices {
  static constexpr int kTile = 2 * kPairs + 2;
  float point[kPairs] = {};
  float power[kPairs][kPairs] = {};       // of the square of each
  float product[kPairs + 1] = {};         // coefficients in x² of the product of all (x² - p²),
  float others[kPairs][kPairs + 1] = {};  // and without each pair
  float scale[kTile] = {};                // 1 / product of (a point - every other finite one)
};

template <int kPairs>
constexpr Matrices<kPairs> matrices() {
  Matrices<kPairs> result;
  const auto& squares = Pairs<kPairs>::squares;
  for (int without = 0; without <= kPairs; ++without) {
    double product[kPairs + 1] = {1};
    for (int pair = 0; pair < kPairs; ++pair) {
      if (pair == without) continue;
      for (int k = kPairs; k > 0; --k) product[k] = product[k - 1] - squares[pair] * product[k];
      product[0] *= -squares[pair];
    }
    if (without == kPairs) {
      for (int k = 0; k <= kPairs; ++k) result.product[k] = static_cast<float>(product[k]);
      result.scale[0] = static_cast<float>(1 / product[0]);
      result.scale[2 * kPairs + 1] = 1;
      continue;
    }
    double value = 0, power = 1;
    for (int k = 0; k < kPairs; ++k, power *= squares[without]) {
      result.others[without][k] = static_cast<float>(product[k]);
      result.power[without][k] = static_cast<float>(power);
      value += product[k] * power;
    }
    result.point[without] = static_cast<float>(Pairs<kPairs>::points[without]);
    result.scale[2 * without + 1] = result.scale[2 * without + 2] = static_cast<float>(0.5 / squares[without] / value);
  }
  return result;
}

template <int kPairs>
constexpr Matrices<kPairs> kMatrices = matrices<kPairs>();

// Three transforms of a line of a tile, each a small matrix of constants; the points stand in the order 0, p, -p of
// each pair, infinity.
template <int kPairs>
struct Line {
  static constexpr int kTile = 2 * kPairs + 2;
  static constexpr int kKernel = kTile - kOutputs + 1;

  // Bᵀ: of kTile values of the wide array.
  static SPARKNET_INLINE void spread(const Vector* x, Vector* y) {
    constexpr const Matrices<kPairs>& with = kMatrices<kPairs>;
    Vector first = x[2 * kPairs], last = x[2 * kPairs + 1];
#pragma GCC unroll 8
    for (int k = 0; k < kPairs; ++k) {
      first += with.product[k] * x[2 * k];
      last += with.product[k] * x[2 * k + 1];
    }
    y[0] = first;
    y[kTile - 1] = last;
#pragma GCC unroll 8
    for (int pair = 0; pair < kPairs; ++pair) {
      Vector even = x[2 * kPairs], odd = x[2 * kPairs - 1];
#pragma GCC unroll 8
      for (int k = 0; k < kPairs - 1; ++k) {
        even += with.others[pair][k] * x[2 * k + 2];
        odd += with.others[pair][k] * x[2 * k + 1];
      }
      odd *= with.point[pair];
      y[2 * pair + 1] = even + odd;
      y[2 * pair + 2] = even - odd;
    }
  }

  // The polynomial of kCount coefficients x, at the points: A, or G without its scale.
  template <int kCount>
  static SPARKNET_INLINE void evaluate(const Vector* x, Vector* y) {
    constexpr const Matrices<kPairs>& with = kMatrices<kPairs>;
    y[0] = x[0];
    y[kTile - 1] = x[kCount - 1];
#pragma GCC unroll 8
    for (int pair = 0; pair < kPairs; ++pair) {
      Vector even = x[0], odd = x[1];
#pragma GCC unroll 8
      for (int k = 2; k < kCount; k += 2) even += with.power[pair][k / 2] * x[k];
#pragma GCC unroll 8
      for (int k = 3; k < kCount; k += 2) odd += with.power[pair][k / 2] * x[k];
      odd *= with.point[pair];
      y[2 * pair + 1] = even + odd;
      y[2 * pair + 2] = even - odd;
    }
  }

  // The transpose of evaluate().
  template <int kCount>
  static SPARKNET_INLINE void collect(const Vector* x, Vector* y) {
    constexpr const Matrices<kPairs>& with = kMatrices<kPairs>;
#pragma GCC unroll 8
    for (int k = 0; k < kCount; ++k) y[k] = Vector{};
    y[0] = x[0];
#pragma GCC unroll 8
    for (int pair = 0; pair < kPairs; ++pair) {
      const Vector sum = x[2 * pair + 1] + x[2 * pair + 2];
      const Vector difference = with.point[pair] * (x[2 * pair + 1] - x[2 * pair + 2]);
#pragma GCC unroll 8
      for (int k = 0; k < kCount; ++k) {
        y[k] += with.power[pair][k / 2] * (k % 2 == 0 ? sum : difference);
      }
    }
    y[kCount - 1] += x[kTile - 1];
  }
};

// A transform along both axes of a tile.
template <int kFrom, int kTo, void (*transform)(const Vector*, Vector*)>
SPARKNET_INLINE void both_axes(const Vector (&x)[kFrom][kFrom], Vector (&y)[kTo][kTo]) {
  Vector half[kTo][kFrom];
#pragma GCC unroll 8
  for (int row = 0; row < kFrom; ++row) {
    Vector line[kTo];
    transform(x[row], line);
#pragma GCC unroll 8
    for (int i = 0; i < kTo; ++i) half[i][row] = line[i];
  }
#pragma GCC unroll 8
  for (int column = 0; column < kTo; ++column) {
    Vector line[kTo];
    transform(half[column], line);
#pragma GCC unroll 8
    for (int i = 0; i < kTo; ++i) y[i][column] = line[i];
  }
}

// 16 channels of all images, and the tiles that cover them: `down` × `across` in each image, counted through.
struct Plane {
  int64_t stride;  // floats from image to image
  int64_t height, width;
  int64_t down, across;
};

// Where a tile lies.
struct Place {
  int64_t offset;  // floats to its image
  int64_t top, left;
};

SPARKNET_INLINE Place place_of(int64_t tile, const Plane& plane) {
  const int64_t in_image = tile % (plane.down * plane.across);
  return {tile / (plane.down * plane.across) * plane.stride, in_image / plane.across * kOutputs,
          in_image % plane.across * kOutputs};
}

// The square of an image at (top, left), zeros where that reaches beyond it.
template <int kSize>
SPARKNET_INLINE void load_square(const float* image, const Plane& plane, int64_t top, int64_t left,
                                 Vector (&square)[kSize][kSize]) {
  if (top >= 0 && left >= 0 && top + kSize <= plane.height && left + kSize <= plane.width) {
    const float* const corner = image + (top * plane.width + left) * kLanes;
#pragma GCC unroll 8
    for (int i = 0; i < kSize; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < kSize; ++j) square[i][j] = load(corner + (i * plane.width + j) * kLanes);
    }
    return;
  }
  for (int i = 0; i < kSize; ++i) {
    const int64_t y = top + i;
    for (int j = 0; j < kSize; ++j) {
      const int64_t x = left + j;
      const bool inside = y >= 0 && y < plane.height && x >= 0 && x < plane.width;
      square[i][j] = inside ? load(image + (y * plane.width + x) * kLanes) : Vector{};
    }
  }
}

template <int kTile>
SPARKNET_INLINE void store_points(const Vector (&tile)[kTile][kTile], float* to, int64_t stride) {
#pragma GCC unroll 8
  for (int i = 0; i < kTile; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kTile; ++j) store(to + (i * kTile + j) * stride, tile[i][j]);
  }
}

template <int kTile>
SPARKNET_INLINE void load_points(const float* from, int64_t stride, Vector (&tile)[kTile][kTile]) {
#pragma GCC unroll 8
  for (int i = 0; i < kTile; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kTile; ++j) tile[i][j] = load(from + (i * kTile + j) * stride);
  }
}

// The tiles [begin, end) of the wide array, which reach `pad` beyond their places: to[point * stride + tile * 16 +
// lane].
template <int kPairs>
void spread_tiles(const float* values, const Plane& plane, int64_t pad_h, int64_t pad_w, int64_t begin, int64_t end,
                  float* to, int64_t stride) {
  constexpr int kTile = Line<kPairs>::kTile;
  for (int64_t tile = begin; tile < end; ++tile, to += kLanes) {
    const Place place = place_of(tile, plane);
    Vector square[kTile][kTile], points[kTile][kTile];
    load_square(values + place.offset, plane, place.top - pad_h, place.left - pad_w, square);
    both_axes<kTile, kTile, Line<kPairs>::spread>(square, points);
    store_points(points, to, stride);
  }
}

// The tiles [begin, end) of the narrow array's gradient, likewise; adds the sums of its channels to `sums`.
template <int kPairs>
void evaluate_tiles(const float* values, const Plane& plane, int64_t begin, int64_t end, float* to, int64_t stride,
                    float* sums) {
  constexpr int kTile = Line<kPairs>::kTile;
  Vector sum{};
  for (int64_t tile = begin; tile < end; ++tile, to += kLanes) {
    const Place place = place_of(tile, plane);
    Vector square[kOutputs][kOutputs], points[kTile][kTile];
    load_square(values + place.offset, plane, place.top, place.left, square);
    Vector of_tile{};
    for (const auto& row : square) of_tile += (row[0] + row[1]) + (row[2] + row[3]);
    sum += of_tile;
    both_axes<kOutputs, kTile, Line<kPairs>::template evaluate<kOutputs>>(square, points);
    store_points(points, to, stride);
  }
  store(sums, load(sums) + sum);
}

// The outputs of tiles [begin, end) from what their points' products have summed up to, plus 16 biases if there are
// any; if `rectify` 0 in place of what is below.
template <int kPairs>
void collect_tiles(const float* from, int64_t stride, const float* bias, bool rectify, float* values,
                   const Plane& plane, int64_t begin, int64_t end) {
  constexpr int kTile = Line<kPairs>::kTile;
  const Vector shift = bias == nullptr ? Vector{} : load(bias);
  for (int64_t tile = begin; tile < end; ++tile, from += kLanes) {
    const Place place = place_of(tile, plane);
    Vector points[kTile][kTile], square[kOutputs][kOutputs];
    load_points(from, stride, points);
    both_axes<kTile, kOutputs, Line<kPairs>::template collect<kOutputs>>(points, square);
    float* const corner = values + place.offset + (place.top * plane.width + place.left) * kLanes;
    for (int i = 0; i < kOutputs && place.top + i < plane.height; ++i) {
      for (int j = 0; j < kOutputs && place.left + j < plane.width; ++j) {
        Vector value = square[i][j] + shift;
        if (rectify) value = value < 0.0f ? Vector{} : value;
        store(corner + (i * plane.width + j) * kLanes, value);
      }
    }
  }
}

// Kernels of `count` inputs for 16 outputs, lane l of input i at kernels[l * lane_stride + i * input_stride], turned by
// half a turn if `turned`: to[point * stride + i * 16 + l].
template <int kPairs>
void evaluate_kernels(const float* kernels, int64_t lane_stride, int64_t input_stride, bool turned, int64_t count,
                      float* to, int64_t stride) {
  constexpr int kTile = Line<kPairs>::kTile, kKernel = Line<kPairs>::kKernel;
  constexpr const Matrices<kPairs>& with = kMatrices<kPairs>;
  for (int64_t input = 0; input < count; ++input, kernels += input_stride, to += kLanes) {
    Vector kernel[kKernel][kKernel], points[kTile][kTile];
    for (int i = 0; i < kKernel; ++i) {
      for (int j = 0; j < kKernel; ++j) {
        const int at = i * kKernel + j;
        const float* const first = kernels + (turned ? kKernel * kKernel - 1 - at : at);
        Vector value;
        for (int lane = 0; lane < kLanes; ++lane) value[lane] = first[lane * lane_stride];
        kernel[i][j] = value;
      }
    }
    both_axes<kKernel, kTile, Line<kPairs>::template evaluate<kKernel>>(kernel, points);
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < kTile; ++j) {
        store(to + (i * kTile + j) * stride, with.scale[i] * with.scale[j] * points[i][j]);
      }
    }
  }
}

// The gradients of such kernels from those of their points, not turned; adds them, or if `fresh` stores them.
template <int kPairs>
void collect_kernels(const float* from, int64_t stride, int64_t count, float* kernels, int64_t lane_stride,
                     int64_t input_stride, bool fresh) {
  constexpr int kTile = Line<kPairs>::kTile, kKernel = Line<kPairs>::kKernel;
  constexpr const Matrices<kPairs>& with = kMatrices<kPairs>;
  for (int64_t input = 0; input < count; ++input, kernels += input_stride, from += kLanes) {
    Vector points[kTile][kTile], kernel[kKernel][kKernel];
    load_points(from, stride, points);
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < kTile; ++j) points[i][j] *= with.scale[i] * with.scale[j];
    }
    both_axes<kTile, kKernel, Line<kPairs>::template collect<kKernel>>(points, kernel);
    for (int lane = 0; lane < kLanes; ++lane) {
      float* const to = kernels + lane * lane_stride;
      for (int i = 0; i < kKernel; ++i) {
        for (int j = 0; j < kKernel; ++j) {
          float& value = to[i * kKernel + j];
          value = fresh ? kernel[i][j][lane] : value + kernel[i][j][lane];
        }
      }
    }
  }
}

// Panels: arrays of rows of 16 floats. c[r][lane] = sum over blocks and k of a[block][r][k] b[block * 16 + k][lane],
// for kRows rows of a panel and for kPanels panels b and c.
template <int kRows, int kPanels>
void multiply_rows(const float* a, int64_t a_stride, int64_t blocks, const float* b, int64_t b_stride, float* c,
                   int64_t c_stride) {
  Vector sums[kRows][kPanels] = {};
  for (int64_t block = 0; block < blocks; ++block) {
#pragma GCC unroll 4
    for (int k = 0; k < kLanes; ++k) {
      Vector right[kPanels];
      for (int panel = 0; panel < kPanels; ++panel) right[panel] = load(b + panel * b_stride + k * kLanes);
      for (int row = 0; row < kRows; ++row) {
        for (int panel = 0; panel < kPanels; ++panel) sums[row][panel] += a[row * kLanes + k] * right[panel];
      }
    }
    a += a_stride;
    b += kLanes * kLanes;
  }
  for (int row = 0; row < kRows; ++row) {
    for (int panel = 0; panel < kPanels; ++panel) store(c + panel * c_stride + row * kLanes, sums[row][panel]);
  }
}

// c[r][lane] (+)= sum over t of a[t][r] b[t][lane], for half of the 16 columns r of a panel and for kPanels panels b
// and c.
constexpr int kHalf = kLanes / 2;
template <int kPanels>
void multiply_columns(const float* a, int64_t count, const float* b, int64_t b_stride, float* c, int64_t c_stride,
                      bool add) {
  Vector sums[kHalf][kPanels] = {};
  if (add) {
    for (int row = 0; row < kHalf; ++row) {
      for (int panel = 0; panel < kPanels; ++panel) sums[row][panel] = load(c + panel * c_stride + row * kLanes);
    }
  }
#pragma GCC unroll 4
  for (int64_t t = 0; t < count; ++t) {
    Vector right[kPanels];
    for (int panel = 0; panel < kPanels; ++panel) right[panel] = load(b + panel * b_stride + t * kLanes);
    for (int row = 0; row < kHalf; ++row) {
      for (int panel = 0; panel < kPanels; ++panel) sums[row][panel] += a[t * kLanes + row] * right[panel];
    }
  }
  for (int row = 0; row < kHalf; ++row) {
    for (int panel = 0; panel < kPanels; ++panel) store(c + panel * c_stride + row * kLanes, sums[row][panel]);
  }
}

}  // namespace sparknet::winograd

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif
