// Initial values of parameters.
#pragma once

#include "core/message.h"
#include "core/tensor.h"

namespace sparknet {

// Fills `tensor` as the FillerParameter says; random types are a function of `seed`, whatever the number of threads.
// Throws Error(kField) for an unknown type or values that make no sense.
void fill(Tensor& tensor, const Message& filler, uint64_t seed);

}  // namespace sparknet
