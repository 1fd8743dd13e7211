// Memory for arrays: aligned for vectors, counted, and limited, so that a net that is too large ends in an error and
// not in the operating system killing the process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace sparknet {

// Not initialised. Error(kMemory) where the engine would then hold more than memory_limit().
std::shared_ptr<float> allocate(int64_t floats);

// Bytes that arrays of the engine hold now, in all nets of the process.
int64_t memory_used();

// Gives the memory of arrays that are gone back to the system; until then it is kept for new ones.
void trim_memory();

// Bytes that they may hold: what was set, else what this machine or container has.
int64_t memory_limit();
// Error(kField) below 1.
void set_memory_limit(int64_t bytes);

// "1.5 GiB"
std::string memory_text(int64_t bytes);

}  // namespace sparknet
