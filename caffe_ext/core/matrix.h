// Products of row-major matrices.
#pragma once

#include <cstdint>

namespace sparknet {

// c (m × n) = beta c + op(a) (m × k) op(b) (k × n), where op is 'N' for the matrix itself and 'T' for its transpose.
void multiply(char a_op, char b_op, int64_t m, int64_t n, int64_t k, const float* a, const float* b, float beta,
              float* c);

// sums[i] += the sum of column i of a rows × columns matrix.
void add_column_sums(const float* values, int64_t rows, int64_t columns, float* sums);

}  // namespace sparknet
