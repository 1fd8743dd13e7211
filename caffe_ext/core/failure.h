// The exception in flight as plain data, for the binding: Cython cannot catch C++ types.
#pragma once

#include <exception>
#include <memory>
#include <string>

#include "core/error.h"

namespace sparknet {

struct Failure {
  std::string kind;  // of ErrorKind; "" for what is no Error
  std::string layer;
  std::string type;
  std::string reason;
  std::shared_ptr<void> cause;  // the exception of Python's behind it; null: none
};

// What is to be said of an exception that is no Error: oneDNN's own, which refuses a shape, a setting or a size, and
// mistakes of ours.
Error unforeseen(const std::exception& error);

// To be called inside a catch block.
Failure current_failure();

}  // namespace sparknet
