// What a net decides once it is built: which layers run as one, and when memory can be given to others.
#include <algorithm>
#include <map>

#include "core/net.h"

namespace sparknet {

namespace {

// Whether `next` works in place on the only top of `first`, and counts in nothing else.
bool follows_in_place(const NetLayer& first, const NetLayer& next) {
  return first.top.size() == 1 && next.top == first.top && next.bottom == first.top && !next.spec->is_opaque &&
         first.layer->loss_weights[0] == 0.0f && next.layer->loss_weights[0] == 0.0f;
}

}  // namespace

void Net::plan_fusion() {
  const int count = static_cast<int>(layers_.size());
  for (int i = 0; i < count; i += 1 + layers_[i].absorbed) {
    NetLayer& first = layers_[i];
    bool backward = true;
    for (int j = i + 1; j < count && follows_in_place(first, layers_[j]); ++j) {
      NetLayer& next = layers_[j];
      // One backward pass for both, or none.
      if (next.needs_backward != first.needs_backward) break;
      if (next.needs_backward && !next.propagate_down[0]) break;
      const Layer::Absorbs what = first.layer->absorb(*next.layer);
      if (what == Layer::Absorbs::kNothing) break;
      first.absorbed = j - i;
      backward = backward && what == Layer::Absorbs::kBoth;
      if (!backward) continue;
      first.absorbed_backward = j - i;
      next.absorbed_by = i;
    }
  }
}

// By memory, not by blob: tensors that share their values die together. What comes from outside, what leaves the net,
// and what code of the user's may hold on to, stays.
std::map<const void*, Net::Life> Net::lives(bool gradients) const {
  std::map<const void*, Life> lives;
  const auto note = [&](Tensor& tensor, int layer, bool writes, bool stays, bool kept) {
    Life& life = lives.try_emplace(tensor.identity(), Life{layer, layer, layer, false, false, {}}).first->second;
    if (writes) life.last_writer = layer;
    life.last_user = layer;
    life.stays |= stays;
    life.kept |= kept;
    if (std::find(life.names.begin(), life.names.end(), &tensor) == life.names.end()) life.names.push_back(&tensor);
  };
  const auto is_output = [this](int blob) {
    return std::find(outputs_.begin(), outputs_.end(), blob) != outputs_.end();
  };
  for (int i = 0; i < static_cast<int>(layers_.size()); ++i) {
    const NetLayer& layer = layers_[i];
    const bool outside = layer.bottom.empty() || layer.spec->is_source || layer.spec->is_opaque;
    const bool keeps_bottom = layer.needs_backward && layer.layer->keeps_bottom();
    const bool keeps_top = layer.needs_backward && layer.layer->keeps_top();
    for (Blob* blob : layer.bottom) {
      if (!gradients) note(blob->data, i, false, outside, keeps_bottom);
    }
    for (size_t j = 0; j < layer.top.size(); ++j) {
      if (gradients) {
        // The weight in the objective stands in the diff.
        note(layer.top[j]->diff, i, true, outside || layer.layer->loss_weights[j] != 0.0f, true);
      } else {
        note(layer.top[j]->data, i, true, outside || is_output(layer.top_ids[j]), keeps_top);
      }
    }
  }
  return lives;
}

void Net::plan_drops() {
  std::map<const void*, Life> values = lives(false), gradients = lives(true);
  if (options_.memory == Memory::kLean) plan_segments(values);
  dead_after_forward_.resize(layers_.size());
  dead_after_backward_.resize(layers_.size());
  const auto add = [](std::vector<Tensor*>& to, const Life& life) {
    if (!life.stays) to.insert(to.end(), life.names.begin(), life.names.end());
  };
  for (const auto& entry : values) {
    if (!entry.second.kept) add(dead_after_forward_[entry.second.last_user], entry.second);
    add(dead_after_backward_[entry.second.first_writer], entry.second);
  }
  for (const auto& entry : gradients) add(dead_after_backward_[entry.second.first_writer], entry.second);
}

}  // namespace sparknet
