#include "core/threads.h"

#include <omp.h>

#include <atomic>

#include "core/error.h"

namespace sparknet {

namespace {

// 0: as OpenMP's own settings (OMP_NUM_THREADS) say.
std::atomic<int> chosen{0};

}  // namespace

void set_num_threads(int threads) {
  if (threads < 1) fail(ErrorKind::kField, "the number of threads must be at least 1, not ", threads);
  chosen = threads;
}

int num_threads() { return chosen != 0 ? chosen.load() : omp_get_max_threads(); }

void use_threads() {
  if (chosen != 0) omp_set_num_threads(chosen);
}

}  // namespace sparknet
