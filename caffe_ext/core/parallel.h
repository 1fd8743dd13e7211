// Loops over the threads that OpenMP gives this worker.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

namespace sparknet {

// Calls body(begin, end) on disjoint ranges that together are [0, count); ranges have at least `grain` elements, so
// that small arrays stay on one thread. How the ranges are cut depends only on `count`, `grain` and the number of
// threads: what is summed per range is reproducible. Of what `body` throws one exception is thrown on.
template <typename Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  const int64_t pieces = std::min<int64_t>(omp_get_max_threads(), (count + grain - 1) / std::max<int64_t>(grain, 1));
  if (pieces <= 1) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  // One that left the parallel region would end the process.
  std::exception_ptr thrown;
  std::mutex mutex;
#pragma omp parallel for num_threads(static_cast<int>(pieces)) schedule(static, 1)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    try {
      body(count * piece / pieces, count * (piece + 1) / pieces);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      thrown = std::current_exception();
    }
  }
  if (thrown) std::rethrow_exception(thrown);
}

// Enough work per range for element-wise loops.
constexpr int64_t kElementGrain = 16384;

}  // namespace sparknet
