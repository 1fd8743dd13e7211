#include "core/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <sstream>

#include "core/error.h"

namespace sparknet {

namespace {

constexpr int64_t kAlignment = 64;  // a cache line, and a vector of AVX-512

std::atomic<int64_t> chosen{0};  // 0: what there is

// Memory for large arrays, in one piece of address space that grows. What is given back joins its neighbours and goes
// to the next array that fits: a pass frees values of other sizes than the gradients that it needs, in the order of a
// stack. Malloc would have the system clear every such array page by page.
class Arena {
 public:
  // Null where the system has no more.
  char* take(int64_t bytes) {
    auto range = std::find_if(free_.begin(), free_.end(), [=](const auto& entry) { return entry.second >= bytes; });
    if (range == free_.end() && !grow(bytes)) return nullptr;
    if (range == free_.end()) range = std::prev(free_.end());
    char* const begin = range->first;
    const int64_t rest = range->second - bytes;
    free_.erase(range);
    if (rest > 0) free_[begin + bytes] = rest;
    unused_ -= bytes;
    return begin;
  }

  void give_back(char* begin, int64_t bytes) {
    unused_ += bytes;
    auto next = free_.lower_bound(begin);
    if (next != free_.end() && begin + bytes == next->first) {
      bytes += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == begin) {
        before->second += bytes;
        return;
      }
    }
    free_[begin] = bytes;
  }

  // Lets the system have the memory that nobody uses.
  void trim() {
    for (const auto& [begin, bytes] : free_) {
      char* const first = round_up(begin, kPage);
      const int64_t whole = (begin + bytes - first) / kPage * kPage;
      if (whole > 0) madvise(first, static_cast<size_t>(whole), MADV_DONTNEED);
    }
  }

 private:
  static constexpr int64_t kPage = 4096;
  static constexpr int64_t kHugePage = 2 << 20;

  static char* round_up(char* at, int64_t unit) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    return at + (unit - static_cast<int64_t>(address % unit)) % unit;
  }

  // Adds a free range of at least `bytes`, behind all others.
  bool grow(int64_t bytes) {
    // Holes too small for anybody are not to take memory as well.
    if (unused_ > mapped_ / 4) trim();
    int64_t missing = bytes;
    if (!free_.empty()) {
      const auto last = std::prev(free_.end());
      if (last->first + last->second == end_) missing -= last->second;
    }
    const int64_t more = (missing + kHugePage - 1) / kHugePage * kHugePage;
    // Far from what others map, so that there is room behind it.
    char* const wanted = end_ != nullptr ? end_ : reinterpret_cast<char*>(uintptr_t{0x600000000000});
    void* got = map(wanted, more, MAP_FIXED_NOREPLACE);
    if (got == MAP_FAILED) {
      // A new piece, aligned like a huge page.
      const int64_t piece = (bytes + kHugePage - 1) / kHugePage * kHugePage;
      got = map(nullptr, piece + kHugePage, 0);
      if (got == MAP_FAILED) return false;
      add(round_up(static_cast<char*>(got), kHugePage), piece);
      return true;
    }
    add(static_cast<char*>(got), more);
    return true;
  }

  static void* map(char* where, int64_t bytes, int flags) {
    return mmap(where, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  }

  void add(char* begin, int64_t bytes) {
    madvise(begin, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a wish
    mapped_ += bytes;
    end_ = std::max(end_, begin + bytes);
    give_back(begin, bytes);
  }

  std::map<char*, int64_t> free_;  // neighbours are joined
  char* end_ = nullptr;
  int64_t mapped_ = 0, unused_ = 0;
};

// The arrays of all nets.
class Pool {
 public:
  char* take(int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes > memory_limit() - used_) {
      fail(ErrorKind::kMemory, "an array of ", memory_text(bytes), " is too much: the engine holds ",
           memory_text(used_), " of the ", memory_text(memory_limit()),
           " that it may use; take a smaller batch, or raise set_memory_limit()");
    }
    char* memory = bytes < kSmallest ? static_cast<char*>(std::aligned_alloc(kAlignment, static_cast<size_t>(bytes)))
                                     : arena_.take(bytes);
    if (memory == nullptr) throw std::bad_alloc();
    used_ += bytes;
    return memory;
  }

  void give_back(char* memory, int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    used_ -= bytes;
    if (bytes < kSmallest) {
      std::free(memory);
    } else {
      arena_.give_back(memory, bytes);
    }
  }

  void trim() {
    const std::lock_guard<std::mutex> lock(mutex_);
    arena_.trim();
  }

  int64_t used() const { return used_; }

 private:
  // Below that malloc is as good.
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int64_t kSmallest = std::numeric_limits<int64_t>::max();  // who uses dead arrays is to be found
#else
  static constexpr int64_t kSmallest = 64 * 1024;
#endif

  std::mutex mutex_;
  Arena arena_;
  std::atomic<int64_t> used_{0};
};

// Shared with the arrays, some of which may outlive it.
const std::shared_ptr<Pool>& the_pool() {
  static const std::shared_ptr<Pool> pool = std::make_shared<Pool>();
  return pool;
}

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

int64_t memory_used() { return the_pool()->used(); }

void trim_memory() { the_pool()->trim(); }

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
  const int64_t wanted = std::max<int64_t>(floats, 1) * static_cast<int64_t>(sizeof(float));
  const int64_t bytes = (wanted + kAlignment - 1) / kAlignment * kAlignment;
  const std::shared_ptr<Pool> pool = the_pool();
  char* const memory = pool->take(bytes);
  return {reinterpret_cast<float*>(memory), [=](float*) { pool->give_back(memory, bytes); }};
}

}  // namespace sparknet
