#include "core/machine.h"

#include <omp.h>

#include <atomic>

#include "core/dnnl_util.h"
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

bool has_bfloat16() {
  // A set that contains another has its bits, too.
  const auto least = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & least) == least;
}

std::string isa() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41: return "sse41";
    case dnnl::cpu_isa::avx: return "avx";
    case dnnl::cpu_isa::avx2: return "avx2";
    case dnnl::cpu_isa::avx2_vnni: return "avx2_vnni";
    case dnnl::cpu_isa::avx2_vnni_2: return "avx2_vnni_2";
    case dnnl::cpu_isa::avx512_core: return "avx512_core";
    case dnnl::cpu_isa::avx512_core_vnni: return "avx512_core_vnni";
    case dnnl::cpu_isa::avx512_core_bf16: return "avx512_core_bf16";
    case dnnl::cpu_isa::avx512_core_fp16: return "avx512_core_fp16";
    case dnnl::cpu_isa::avx512_core_amx: return "avx512_core_amx";
    default: return "other";
  }
}

}  // namespace sparknet
