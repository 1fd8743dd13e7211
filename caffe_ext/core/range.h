// Settings that are a range.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/message.h"

namespace sparknet {

struct Range {
  float from, to;
};

// A repeated field of two numbers, which do not fall; `absent` when it is not given. `where` names the message. Throws
// Error(kField).
inline Range range_of(const Message& param, const char* name, const char* where, Range absent) {
  if (!param.has(name)) return absent;
  const std::vector<double>& given = param.reals(name);
  if (given.size() != 2 || !std::isfinite(given[0]) || !std::isfinite(given[1]) || given[0] > given[1]) {
    fail(ErrorKind::kField, where, " wants two numbers as ", name, ", from and to");
  }
  return {static_cast<float>(given[0]), static_cast<float>(given[1])};
}

}  // namespace sparknet
