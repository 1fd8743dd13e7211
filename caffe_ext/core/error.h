// The one exception type of the engine: what went wrong, in which layer. The binding turns it into Python's EngineError
// tree; nothing in the engine may end the process.
#pragma once

#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace sparknet {

// What kind of rule was broken; the names reach Python as LayerProblem.kind.
enum class ErrorKind {
  kType,       // unknown layer type
  kBottoms,    // wrong number of bottoms
  kTops,       // wrong number of tops
  kBlob,       // a bottom that nothing makes
  kDuplicate,  // a top that exists already
  kShape,      // shapes do not fit
  kField,      // a field's value makes no sense
  kParam,      // parameters: too many settings, sharing that disagrees
  kPhase,      // not possible in this phase
  kMemory,     // too large, or out of memory
  kData,       // input that makes no sense: a label out of range, a file that cannot be read
  kState,      // a call that does not fit the object's state
  kCode,       // a layer written in Python raised an exception
};

inline const char* kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kType: return "type";
    case ErrorKind::kBottoms: return "bottoms";
    case ErrorKind::kTops: return "tops";
    case ErrorKind::kBlob: return "blob";
    case ErrorKind::kDuplicate: return "duplicate";
    case ErrorKind::kShape: return "shape";
    case ErrorKind::kField: return "field";
    case ErrorKind::kParam: return "param";
    case ErrorKind::kPhase: return "phase";
    case ErrorKind::kMemory: return "memory";
    case ErrorKind::kData: return "data";
    case ErrorKind::kState: return "state";
    case ErrorKind::kCode: return "code";
  }
  return "state";
}

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& reason, int bottom = -1)
      : std::runtime_error(reason), kind_(kind), bottom_(bottom) {}

  ErrorKind kind() const { return kind_; }
  // Which bottom is to blame; -1: none in particular.
  int bottom() const { return bottom_; }
  const std::string& layer() const { return layer_; }
  const std::string& type() const { return type_; }
  // The exception of Python's behind this one, if any.
  const std::shared_ptr<void>& cause() const { return cause_; }
  void set_cause(std::shared_ptr<void> cause) { cause_ = std::move(cause); }
  // The net fills in where it happened on the error's way up.
  void set_layer(std::string layer, std::string type) {
    layer_ = std::move(layer);
    type_ = std::move(type);
  }

 private:
  ErrorKind kind_;
  int bottom_;
  std::string layer_;
  std::string type_;
  std::shared_ptr<void> cause_;
};

// Joins its arguments as a stream would print them.
template <typename... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <typename... Parts>
[[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  throw Error(kind, join(parts...));
}

}  // namespace sparknet
