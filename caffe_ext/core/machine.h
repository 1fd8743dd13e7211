// What of the machine the engine uses: threads and instruction sets.
#pragma once

#include <string>

namespace sparknet {

// For all threads of the process that call the engine; Error(kField) below 1.
void set_num_threads(int threads);
int num_threads();
// OpenMP keeps its count per calling thread: every entry into the engine sets it.
void use_threads();

// Whether oneDNN has implementations in bfloat16 for it.
bool has_bfloat16();

// The instruction set that oneDNN uses, in its own words.
std::string isa();

}  // namespace sparknet
