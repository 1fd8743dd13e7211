// What of the processor oneDNN uses.
#pragma once

#include <string>

namespace sparknet {

// "avx512_core" and the like, in oneDNN's words.
std::string isa();

}  // namespace sparknet
