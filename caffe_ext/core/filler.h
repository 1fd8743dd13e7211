// Initial values of parameters.
#pragma once

#include "core/message.h"
#include "core/tensor.h"

namespace sparknet {

// Throws Error(kField) where fill() would refuse: an unknown type, or values that make no sense. Allocates nothing.
void check_filler(const Message& filler, const Shape& shape);

// Fills `tensor` as the FillerParameter says; random types are a function of `seed`, whatever the number of threads.
// Throws what check_filler throws.
void fill(Tensor& tensor, const Message& filler, uint64_t seed);

}  // namespace sparknet
