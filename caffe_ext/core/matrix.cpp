#include "core/matrix.h"

#include <dnnl.h>

#include <algorithm>

#include "core/dnnl_util.h"
#include "core/error.h"
#include "core/parallel.h"

namespace sparknet {

namespace {

using dnnl::memory;

void sgemm(char a_op, char b_op, int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, const float* b,
           int64_t b_row, float beta, float* c, int64_t c_row) {
  const dnnl_status_t status = dnnl_sgemm(a_op, b_op, m, n, k, 1.0f, a, a_row, b, b_row, beta, c, c_row);
  if (status != dnnl_success) fail(ErrorKind::kState, "a matrix product failed in oneDNN with status ", status);
}

// What follows is for the few rows of a batch and large weights, which come from memory, where oneDNN's sgemm runs at
// half its speed or less: it copies the large matrix first, or writes it in pieces of three cache lines. It does
// neither for the shapes that these functions give it (measured with oneDNN 3.2 on AVX-512).

constexpr int64_t kLarge = int64_t{1} << 19;  // floats: the second-level cache of a core

// c = beta c + a b for a large b, a few of its rows at a time, so that it is read from first to last.
void multiply_streaming(int64_t m, int64_t n, int64_t k, const float* a, const float* b, float beta, float* c) {
  const int64_t slice = m < 32 ? 32 : 128;
  for (int64_t p = 0; p < k; p += slice) {
    sgemm('N', 'N', m, n, std::min(slice, k - p), a + p, k, b + p * n, n, p == 0 ? beta : 1.0f, c, n);
  }
}

// c = beta c + a bᵀ for a large b, as the transpose of b aᵀ, for which it is used as it lies.
void multiply_by_rows(int64_t m, int64_t n, int64_t k, const float* a, const float* b, float beta, float* c) {
  const memory::desc any({k, m}, memory::data_type::f32, memory::format_tag::any);
  const dnnl::matmul::primitive_desc pd(dnnl_engine(), plain_desc({n, k}), any, plain_desc({n, m}));
  const memory packed = make_memory(pd.weights_desc()), product = make_memory(pd.dst_desc());
  reorder(wrap_memory(transposed_desc(k, m), a), packed);
  execute(dnnl::matmul(pd),
          {{DNNL_ARG_SRC, wrap_memory(pd.src_desc(), b)}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, product}});
  const auto* values = static_cast<const float*>(product.get_data_handle());
  reorder(wrap_memory(transposed_desc(m, n), values), wrap_memory(plain_desc({m, n}), c), beta != 0.0f);
}

// c = beta c + aᵀ b for a large c, which is written a few rows at a time.
void multiply_writing(int64_t m, int64_t n, int64_t k, const float* a, const float* b, float beta, float* c) {
  constexpr int64_t kRows = 48;
  const memory transposed = make_memory(plain_desc({m, k}));
  reorder(wrap_memory(transposed_desc(m, k), a), transposed);
  const auto* rows = static_cast<const float*>(transposed.get_data_handle());
  for (int64_t i = 0; i < m; i += kRows) {
    sgemm('N', 'N', std::min(kRows, m - i), n, k, rows + i * k, k, b, n, beta, c + i * n, n);
  }
}

}  // namespace

void multiply(char a_op, char b_op, int64_t m, int64_t n, int64_t k, const float* a, const float* b, float beta,
              float* c) {
  const bool few = m > 1 && m <= 256 && n * k >= kLarge;
  if (few && a_op == 'N' && b_op == 'N') return multiply_streaming(m, n, k, a, b, beta, c);
  if (few && a_op == 'N' && b_op == 'T') return multiply_by_rows(m, n, k, a, b, beta, c);
  const bool writes = k >= 48 && k <= 96 && m * n >= 16 * kLarge;
  if (writes && a_op == 'T' && b_op == 'N') return multiply_writing(m, n, k, a, b, beta, c);
  sgemm(a_op, b_op, m, n, k, a, a_op == 'T' ? m : k, b, b_op == 'T' ? k : n, beta, c, n);
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
