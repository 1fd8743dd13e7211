// Loops for the vectors of the CPU at hand.
#pragma once

// Before a function: it is compiled for AVX-512, AVX2 and the baseline, and the right one is chosen when the engine is
// loaded. Only what stands in the function itself gains: lambdas and calls that are not inlined stay at the baseline.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SPARKNET_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SPARKNET_WIDE
#endif
