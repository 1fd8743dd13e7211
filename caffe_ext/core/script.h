// Layers written in Python, as the engine sees them. The binding supplies the calls: the engine itself links no Python.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/layer.h"
#include "core/message.h"
#include "core/tensor.h"

namespace sparknet {

// How a call ended: without a cause well, else with the exception that it raised.
struct Outcome {
  std::string reason;
  std::shared_ptr<void> cause;
};

enum class ScriptVerb { kSetup, kReshape, kForward, kBackward };

// Each call takes the interpreter's lock itself and lets no exception out.
struct ScriptHost {
  // Makes the object that `param`, a LayerParameter, describes.
  Outcome (*create)(const Message& param, Phase phase, std::shared_ptr<void>& script) = nullptr;
  Outcome (*run)(void* script, ScriptVerb verb, const Blobs& bottom, const Blobs& top,
                 const std::vector<bool>& propagate_down) = nullptr;
  // The parameters that its setup has declared.
  std::vector<std::shared_ptr<Blob>> (*params)(void* script) = nullptr;
};

void set_script_host(const ScriptHost& host);

// The object behind a layer; null for layers that are not written in Python.
void* script_of(const Layer& layer);

}  // namespace sparknet
