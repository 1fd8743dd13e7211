#include "core/layer.h"

#include <algorithm>
#include <deque>
#include <map>

namespace sparknet {

namespace {

// Function-local: other files register during static initialisation, in no particular order.
struct Types {
  std::deque<LayerSpec> specs;
  std::map<std::string, const LayerSpec*> by_name;
};

Types& types() {
  static Types instance;
  return instance;
}

}  // namespace

const std::vector<const LayerSpec*>& Registry::all() {
  static const std::vector<const LayerSpec*> sorted = [] {
    std::vector<const LayerSpec*> list;
    for (const auto& entry : types().by_name) list.push_back(entry.second);
    return list;
  }();
  return sorted;
}

const LayerSpec* Registry::find(const std::string& type) {
  const auto found = types().by_name.find(type);
  return found == types().by_name.end() ? nullptr : found->second;
}

bool Registry::add_spec(LayerSpec spec) {
  types().specs.push_back(std::move(spec));
  const LayerSpec& kept = types().specs.back();
  types().by_name[kept.type] = &kept;
  return true;
}

}  // namespace sparknet
