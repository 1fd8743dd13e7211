#include "core/matrix.h"

#include <dnnl.h>

#include <algorithm>

#include "core/error.h"
#include "core/parallel.h"

namespace sparknet {

void multiply(char a_op, char b_op, int64_t m, int64_t n, int64_t k, const float* a, const float* b, float beta,
              float* c) {
  const dnnl_status_t status =
      dnnl_sgemm(a_op, b_op, m, n, k, 1.0f, a, a_op == 'T' ? m : k, b, b_op == 'T' ? k : n, beta, c, n);
  if (status != dnnl_success) fail(ErrorKind::kState, "a matrix product failed in oneDNN with status ", status);
}

void add_column_sums(const float* values, int64_t rows, int64_t columns, float* sums) {
  parallel_for(columns, std::max<int64_t>(kElementGrain / std::max<int64_t>(rows, 1), 16),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = 0; row < rows; ++row) {
                   const float* from = values + row * columns;
#pragma omp simd
                   for (int64_t i = begin; i < end; ++i) sums[i] += from[i];
                 }
               });
}

}  // namespace sparknet
