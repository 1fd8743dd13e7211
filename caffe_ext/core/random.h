// Random numbers as a function of a key and a position, so that any thread can make any of them and the same key gives
// the same numbers for every number of threads (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace sparknet {

// Spreads a key and a number over 64 bits (the finaliser of SplitMix64).
inline uint64_t mix(uint64_t key, uint64_t number) {
  uint64_t x = key + 0x9E3779B97F4A7C15ULL * (number + 1);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

// Philox-4x32-10: four random words for each key and counter.
inline std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  std::array<uint32_t, 4> c = {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = 0xD2511F53ULL * c[0];
    const uint64_t p1 = 0xCD9E8D57ULL * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return c;
}

// A number in [0, 1) from a random word.
inline float uniform(uint32_t word) { return static_cast<float>(word >> 8) * (1.0f / 16777216.0f); }

// Two independent standard normal numbers from two random words (Box and Muller).
inline std::array<double, 2> normal(uint32_t a, uint32_t b) {
  const double radius = std::sqrt(-2.0 * std::log((a + 0.5) / 4294967296.0));
  const double angle = 6.283185307179586 * (b / 4294967296.0);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

}  // namespace sparknet
