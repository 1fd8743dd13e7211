// How many threads the engine's loops and oneDNN use.
#pragma once

namespace sparknet {

// For all threads of the process that call the engine; Error(kField) below 1.
void set_num_threads(int threads);
int num_threads();
// OpenMP keeps its count per calling thread: every entry into the engine sets it.
void use_threads();

}  // namespace sparknet
