// Products of small matrices on one core, all of whose operands are panels: a matrix cut into columns of 16, each of
// them stored as rows of 16 floats. Where its columns are no multiple of 16 the last panel is filled up with zeros.
//
// oneDNN's products of matrices as small as an LSTM's step spend an eighth of their time on calls, copies and strides.
#pragma once

#include <cstdint>

#include "core/panel_kernels.h"

namespace sparknet {

inline int64_t panels_of(int64_t columns) { return (columns + kLanes - 1) / kLanes; }

// Floats from panel to panel of `rows` rows each, an odd number of cache lines: panels 4 KiB apart would fall into the
// same few lines of the cache.
inline int64_t panel_stride(int64_t rows) { return (rows | 1) * kLanes; }

// Panels of a matrix, or some rows of them; `stride`: floats from panel to panel.
template <typename Float>
struct Panels {
  Float* values;
  int64_t stride;
  int64_t count;
};

// c = a b, plus bias[column] if there is any. Of a and c `rows` rows; b has 16 for each panel of a.
void multiply_panels(int64_t rows, const Panels<const float>& a, const Panels<const float>& b, const float* bias,
                     const Panels<float>& c);

// c = aᵀ b, or += that, where a and b have `rows` rows and c has 16 for each panel of a.
void multiply_transposed_panels(int64_t rows, const Panels<const float>& a, const Panels<const float>& b,
                                const Panels<float>& c, bool add);

}  // namespace sparknet
