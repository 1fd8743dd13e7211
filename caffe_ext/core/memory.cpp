#include "core/memory.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <new>
#include <sstream>

#include "core/error.h"

namespace sparknet {

namespace {

std::atomic<int64_t> used{0};
std::atomic<int64_t> chosen{0};  // 0: what there is

// Linux grants more than there is, and kills the process when it is used. In a container the machine's own memory says
// nothing: there the limit stands in one of two files, a number or "max".
int64_t physical() {
  int64_t bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    int64_t limit = 0;
    if (std::ifstream(path) >> limit && limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

}  // namespace

int64_t memory_used() { return used; }

int64_t memory_limit() {
  static const int64_t there_is = physical();
  const int64_t set = chosen;
  return set != 0 ? set : there_is;
}

void set_memory_limit(int64_t bytes) {
  if (bytes < 1) fail(ErrorKind::kField, "the memory limit must be at least 1 byte, not ", bytes);
  chosen = bytes;
}

std::string memory_text(int64_t bytes) {
  const bool large = bytes >= int64_t{1} << 30;
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << static_cast<double>(bytes) / static_cast<double>(1 << (large ? 30 : 20))
       << (large ? " GiB" : " MiB");
  return text.str();
}

std::shared_ptr<float> allocate(int64_t floats) {
  constexpr int64_t kAlignment = 64;  // a cache line, and a vector of AVX-512
  const int64_t wanted = std::max<int64_t>(floats, 1) * static_cast<int64_t>(sizeof(float));
  const int64_t bytes = (wanted + kAlignment - 1) / kAlignment * kAlignment;
  const int64_t held = used.fetch_add(bytes);
  if (bytes > memory_limit() - held) {
    used -= bytes;
    fail(ErrorKind::kMemory, "an array of ", memory_text(bytes), " is too much: the engine holds ", memory_text(held),
         " of the ", memory_text(memory_limit()),
         " that it may use; take a smaller batch, or raise set_memory_limit()");
  }
  auto* memory = static_cast<float*>(std::aligned_alloc(kAlignment, static_cast<size_t>(bytes)));
  if (memory == nullptr) {
    used -= bytes;
    throw std::bad_alloc();
  }
  return {memory, [bytes](float* values) {
            std::free(values);
            used -= bytes;
          }};
}

}  // namespace sparknet
