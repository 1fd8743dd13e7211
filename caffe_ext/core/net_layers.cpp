// Which layers a net has: those that its state includes, and the Splits between them.
#include <algorithm>
#include <utility>

#include "core/net.h"

namespace sparknet {

namespace {

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// Every condition that the rule names must hold.
bool meets(const NetState& state, const Message& rule) {
  if (rule.has("phase") && (rule.text("phase") == "TRAIN") != (state.phase == Phase::kTrain)) return false;
  if (rule.has("min_level") && state.level < rule.integer("min_level")) return false;
  if (rule.has("max_level") && state.level > rule.integer("max_level")) return false;
  const auto in_state = [&](const std::string& stage) { return contains(state.stages, stage); };
  const auto& wanted = rule.texts("stage");
  const auto& unwanted = rule.texts("not_stage");
  return std::all_of(wanted.begin(), wanted.end(), in_state) &&
         std::none_of(unwanted.begin(), unwanted.end(), in_state);
}

}  // namespace

std::vector<Net::Planned> Net::filter(const Message& param, const NetState& state) {
  std::vector<Planned> kept;
  const auto& layers = param.messages("layer");
  for (size_t i = 0; i < layers.size(); ++i) {
    const Message& layer = layers[i];
    const int index = static_cast<int>(i);
    const auto& include = layer.messages("include");
    const auto& exclude = layer.messages("exclude");
    attempt(index, layer.text("name"), layer.text("type"), [&] {
      if (!include.empty() && !exclude.empty()) {
        fail(ErrorKind::kField, "has both include and exclude rules; give one kind only");
      }
    });
    const auto met = [&](const Message& rule) { return meets(state, rule); };
    const bool in = include.empty() ? std::none_of(exclude.begin(), exclude.end(), met)
                                    : std::any_of(include.begin(), include.end(), met);
    if (in) kept.push_back({index, layer, layer.texts("bottom")});
  }
  return kept;
}

// A blob that several layers read, or one reader and the objective, gets a copy for each, so that their gradients can
// be summed: the layer `<blob>_<layer>_<top>_split` with tops `<blob>_<layer>_<top>_split_<k>`.
std::vector<Net::Planned> Net::insert_splits(std::vector<Planned> layers) {
  using TopId = std::pair<size_t, size_t>;  // layer, top
  std::map<std::string, TopId> made_by;
  std::map<std::pair<size_t, size_t>, TopId> source_of;  // by layer, bottom
  std::map<TopId, int> readers;
  std::map<TopId, double> loss_weight;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto& bottoms = layers[i].param.texts("bottom");
    for (size_t j = 0; j < bottoms.size(); ++j) {
      const auto made = made_by.find(bottoms[j]);
      if (made == made_by.end()) continue;  // wire() says so
      source_of[{i, j}] = made->second;
      ++readers[made->second];
    }
    const auto& tops = layers[i].param.texts("top");
    const auto& weights = layers[i].param.reals("loss_weight");
    for (size_t k = 0; k < tops.size(); ++k) {
      made_by[tops[k]] = {i, k};
      if (k < weights.size() && weights[k] != 0.0) {
        loss_weight[{i, k}] = weights[k];
        ++readers[{i, k}];
      }
    }
  }

  std::map<TopId, int> next_copy;
  std::vector<Planned> result;
  const auto split_name = [&](const TopId& top) {
    const Message& maker = layers[top.first].param;
    return join(maker.texts("top")[top.second], "_", maker.text("name"), "_", top.second, "_split");
  };
  for (size_t i = 0; i < layers.size(); ++i) {
    Planned layer = layers[i];
    for (size_t j = 0; j < layer.written_bottoms.size(); ++j) {
      const auto source = source_of.find({i, j});
      if (source == source_of.end() || readers[source->second] < 2) continue;
      layer.param.field("bottom").texts[j] = join(split_name(source->second), "_", next_copy[source->second]++);
    }
    std::vector<Planned> splits;
    for (size_t k = 0; k < layers[i].param.texts("top").size(); ++k) {
      const TopId top{i, k};
      const int copies = readers.count(top) ? readers[top] : 0;
      if (copies < 2) continue;
      Message split = layers[i].param.empty_like();
      const std::string& blob = layers[i].param.texts("top")[k];
      split.field("name").texts = {split_name(top)};
      split.field("type").texts = {"Split"};
      split.field("bottom").texts = {blob};
      for (int copy = 0; copy < copies; ++copy) split.field("top").texts.push_back(join(split_name(top), "_", copy));
      const auto weight = loss_weight.find(top);
      if (weight != loss_weight.end()) {
        // The first copy carries the weight in place of the blob itself.
        split.field("loss_weight").reals.assign(static_cast<size_t>(copies), 0.0);
        split.field("loss_weight").reals[0] = weight->second;
        layer.param.field("loss_weight").reals[k] = 0.0;
        next_copy[top] = 1;
      }
      splits.push_back({-1, std::move(split), {blob}});
    }
    result.push_back(std::move(layer));
    for (Planned& split : splits) result.push_back(std::move(split));
  }
  return result;
}

}  // namespace sparknet
