// Random numbers for what happens to a row.
#pragma once

#include <array>
#include <cstdint>

#include "core/random.h"

namespace sparknet {

// A number in [0, count) from a random word.
inline int64_t choose(uint32_t word, int64_t count) {
  return static_cast<int64_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(count)) >> 32);
}

// One number after the other, each a function of the seed, of what it is for, and of the row: what is drawn for one
// purpose does not depend on which others there are.
class Draws {
 public:
  // Their values are part of what a seed means.
  enum Purpose : uint64_t { kRotation = 1, kResizedCrop = 2, kColorJitter = 3, kCutout = 4, kMixup = 5, kPartners = 6 };

  Draws(uint64_t seed, Purpose purpose, int64_t row) : key_(mix(mix(seed, purpose), static_cast<uint64_t>(row))) {}

  uint32_t word() {
    if (used_ == words_.size()) {
      words_ = philox(key_, block_++);
      used_ = 0;
    }
    return words_[used_++];
  }

  float between(float from, float to) { return from + (to - from) * uniform(word()); }
  int64_t below(int64_t count) { return choose(word(), count); }

 private:
  uint64_t key_;
  uint64_t block_ = 0;
  std::array<uint32_t, 4> words_{};
  size_t used_ = 4;
};

}  // namespace sparknet
