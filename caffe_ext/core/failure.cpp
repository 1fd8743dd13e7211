#include "core/failure.h"

#include <new>

#include "core/error.h"

namespace sparknet {

Failure current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {kind_name(error.kind()), error.layer(), error.type(), error.what(), error.cause()};
  } catch (const std::bad_alloc&) {
    return {kind_name(ErrorKind::kMemory), "", "", "out of memory", nullptr};
  } catch (const std::exception& error) {
    return {"", "", "", join("internal error of the engine: ", error.what()), nullptr};
  } catch (...) {
    return {"", "", "", "internal error of the engine", nullptr};
  }
}

}  // namespace sparknet
