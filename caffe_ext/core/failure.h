// The exception in flight as plain data, for the binding: Cython cannot catch C++ types.
#pragma once

#include <memory>
#include <string>

namespace sparknet {

struct Failure {
  std::string kind;  // of ErrorKind; "" for what is no Error
  std::string layer;
  std::string type;
  std::string reason;
  std::shared_ptr<void> cause;  // the exception of Python's behind it; null: none
};

// To be called inside a catch block.
Failure current_failure();

}  // namespace sparknet
