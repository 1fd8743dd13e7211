#include "core/failure.h"

#include <dnnl.hpp>
#include <new>

namespace sparknet {

Error unforeseen(const std::exception& error) {
  const auto* refusal = dynamic_cast<const dnnl::error*>(&error);
  if (refusal == nullptr) return {ErrorKind::kState, join("internal error of the engine: ", error.what())};
  if (refusal->status == dnnl_out_of_memory) return {ErrorKind::kMemory, "out of memory"};
  return {ErrorKind::kShape, join("oneDNN refuses these shapes and settings: ", error.what())};
}

Failure current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {kind_name(error.kind()), error.layer(), error.type(), error.what(), error.cause()};
  } catch (const std::bad_alloc&) {
    return {kind_name(ErrorKind::kMemory), "", "", "out of memory", nullptr};
  } catch (const std::exception& error) {
    return {"", "", "", unforeseen(error).what(), nullptr};
  } catch (...) {
    return {"", "", "", "internal error of the engine", nullptr};
  }
}

}  // namespace sparknet
