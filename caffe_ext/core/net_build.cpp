// Building a net: its layers made one after the other, then the memory of its parameters.
#include <algorithm>
#include <set>
#include <utility>

#include "core/dnnl_util.h"
#include "core/filler.h"
#include "core/machine.h"
#include "core/memory.h"
#include "core/net.h"
#include "core/parallel.h"
#include "core/random.h"

namespace sparknet {

namespace {

// The number of edits between two names, ignoring case.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (std::tolower(a[i - 1]) != std::tolower(b[j - 1]));
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

// " - did you mean `x`?" for the name that comes nearest, or nothing.
std::string suggestion(const std::string& wrong, const std::vector<std::string>& names) {
  constexpr size_t kLongest = 100;
  const std::string* best = nullptr;
  size_t least = std::max<size_t>(1, wrong.size() / 3) + 1;
  for (const std::string& name : names) {
    // The cost grows with both lengths, and names of this length are nobody's typing.
    if (std::max(name.size(), wrong.size()) > kLongest) continue;
    const size_t edits = distance(wrong, name);
    if (edits < least) {
      least = edits;
      best = &name;
    }
  }
  return best == nullptr ? "" : "; did you mean `" + *best + "`?";
}

std::string number_of(int least, int most, const char* what) {
  const auto plural = [what](int n) { return join(n, " ", what, n == 1 ? "" : "s"); };
  if (most == LayerSpec::kAny) return least == 0 ? join("any number of ", what, "s") : "at least " + plural(least);
  if (least == most) return least == 0 ? join("no ", what, "s") : plural(least);
  return join(least, " to ", plural(most));
}

std::string names_of(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return names.empty() ? text : " (" + text + ")";
}

// A name's contribution to a seed (FNV-1a).
uint64_t hash(const std::string& text) {
  uint64_t value = 14695981039346656037ULL;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return value;
}

bool same_multiplier(double a, double b) { return static_cast<float>(a) == static_cast<float>(b); }

}  // namespace

Net::Net(const Message& param, const NetState& state, uint64_t seed, const std::map<std::string, Shape>& supplied,
         const NetOptions& options)
    : options_(options), seed_(seed), supplied_(&supplied) {
  if (options.precision == Precision::kBfloat16) {
    if (!has_bfloat16()) {
      fail(ErrorKind::kField, "precision bf16 takes a CPU with AVX-512, and oneDNN uses ", isa(),
           " here: compute in float32");
    }
    copies_ = std::make_shared<Bfloat16Copies>();
  }
  use_threads();
  build(param, state);
  supplied_ = nullptr;
  check_memory();
  place_params();
  fill_params(seed);
  for (NetLayer& layer : layers_) attempt(layer.index, layer.name, layer.type, [&] { layer.layer->begin(layer.top); });
  for (NetLayer& layer : layers_) layer.layer->needs_backward = layer.needs_backward;
  if (options_.fuse) plan_fusion();
  if (options_.memory != Memory::kAll) plan_drops();
}

Net::~Net() {
  layers_.clear();
  blobs_.clear();
  learnable_.clear();
  flat_data_.reset();
  flat_diff_.reset();
  trim_memory();
}

std::unique_ptr<Net> Net::check(const Message& param, const NetState& state,
                                const std::map<std::string, Shape>& supplied, std::vector<Problem>& problems) {
  std::unique_ptr<Net> net(new Net());
  net->problems_ = &problems;
  net->supplied_ = &supplied;
  net->build(param, state);
  net->problems_ = nullptr;
  net->supplied_ = nullptr;
  return net;
}

void Net::build(const Message& param, const NetState& state) {
  name_ = param.text("name");
  phase_ = state.phase;
  auto planned = insert_splits(filter(param, state));
  layers_.reserve(planned.size());
  for (Planned& layer : planned) add_layer(layer);
  plan_backward(param.flag("force_backward"));
  for (const auto& entry : available_) outputs_.push_back(entry.second);
}

void Net::add_layer(Planned& planned) {
  layers_.emplace_back();
  NetLayer& to = layers_.back();
  to.index = planned.index;
  to.param = planned.param;
  to.name = planned.param.text("name");
  to.type = planned.param.text("type");
  to.spec = Registry::find(to.type);
  attempt(to.index, to.name, to.type, [&] {
    if (to.spec != nullptr) return;
    std::vector<std::string> types;
    for (const LayerSpec* spec : Registry::all()) types.push_back(spec->type);
    if (to.type.empty()) fail(ErrorKind::kType, "has no type");
    const std::string close = suggestion(to.type, types);
    fail(ErrorKind::kType, "there is no layer type `", to.type, "`",
         close.empty() ? "; there are" + names_of(types) : close);
  });
  bool good = wire(planned, to) && to.spec != nullptr;
  if (good) {
    good = attempt(to.index, to.name, to.type, [&] { make(planned, to); });
    if (!good) to.layer.reset();
  }
  for (const int id : to.top_ids) {
    if (!good) known_[id] = false;
    if (to.spec != nullptr && to.spec->is_source && std::find(inputs_.begin(), inputs_.end(), id) == inputs_.end()) {
      inputs_.push_back(id);
    }
  }
}

// Finds bottoms, makes tops, checks their numbers. False when the layer cannot be made of them.
bool Net::wire(const Planned& planned, NetLayer& to) {
  const auto check = [&](const auto& body) { return attempt(to.index, to.name, to.type, body); };
  bool good = true;
  const auto& bottoms = planned.param.texts("bottom");
  for (size_t i = 0; i < bottoms.size(); ++i) {
    const auto found = blob_ids_.find(bottoms[i]);
    if (found == blob_ids_.end()) {
      good = check([&] {
        std::vector<std::string> names;
        for (const auto& entry : blob_ids_) names.push_back(entry.first);
        throw Error(ErrorKind::kBlob,
                    join("no layer above it makes its bottom `", bottoms[i], "`", suggestion(bottoms[i], names)),
                    static_cast<int>(i));
      });
      continue;
    }
    const int id = found->second;
    to.bottom_ids.push_back(id);
    to.bottom.push_back(blobs_[id].get());
    available_.erase(bottoms[i]);
    if (!known_[id]) good = false;
  }

  const auto add_blob = [&](const std::string& name) {
    auto blob = std::make_shared<Blob>();
    blob->name = name;
    to.top_ids.push_back(static_cast<int>(blobs_.size()));
    to.top.push_back(blob.get());
    blobs_.push_back(std::move(blob));
    known_.push_back(true);
    loss_weights_.push_back(0.0f);
    blob_needs_backward_.push_back(false);
  };
  const auto& tops = planned.param.texts("top");
  for (size_t i = 0; i < tops.size(); ++i) {
    const auto existing = blob_ids_.find(tops[i]);
    const bool in_place = existing != blob_ids_.end() && i < bottoms.size() && bottoms[i] == tops[i];
    if (in_place) {
      good &= check([&] {
        if (to.spec != nullptr && !to.spec->may_be_in_place) {
          fail(ErrorKind::kTops, "a ", to.type, " layer cannot write over its bottom; give its top another name than `",
               tops[i], "`");
        }
      });
      to.top_ids.push_back(existing->second);
      to.top.push_back(blobs_[existing->second].get());
    } else {
      if (existing != blob_ids_.end()) {
        good &= check([&] {
          const auto& written = planned.written_bottoms;
          if (i < written.size() && written[i] == tops[i]) {
            fail(ErrorKind::kDuplicate, "cannot work in place on `", tops[i],
                 "`, which another layer reads too; give its top another name");
          }
          fail(ErrorKind::kDuplicate, "its top `", tops[i], "` exists already: an earlier layer makes it");
        });
      }
      add_blob(tops[i]);
      blob_ids_[tops[i]] = to.top_ids.back();
    }
    available_[tops[i]] = to.top_ids.back();
  }
  // A loss needs no name for its top.
  if (to.spec != nullptr && to.spec->is_loss && tops.empty()) add_blob("(automatic)");
  if (to.spec == nullptr) return false;

  good &= check([&] {
    const LayerSpec& spec = *to.spec;
    const int got = static_cast<int>(bottoms.size());
    if (got < spec.min_bottoms || (spec.max_bottoms != LayerSpec::kAny && got > spec.max_bottoms)) {
      fail(ErrorKind::kBottoms, "a ", to.type, " layer takes ", number_of(spec.min_bottoms, spec.max_bottoms, "bottom"),
           names_of(spec.bottoms_named), ", got ", got);
    }
  });
  good &= check([&] {
    const LayerSpec& spec = *to.spec;
    const int got = static_cast<int>(to.top.size());
    if (spec.equal_tops && got != static_cast<int>(bottoms.size())) {
      fail(ErrorKind::kTops, "a ", to.type, " layer makes as many tops as it has bottoms, ", bottoms.size(), "; got ",
           got);
    }
    if (got < spec.min_tops || (spec.max_tops != LayerSpec::kAny && got > spec.max_tops)) {
      fail(ErrorKind::kTops, "a ", to.type, " layer makes ", number_of(spec.min_tops, spec.max_tops, "top"), ", got ",
           got);
    }
  });
  good &= check([&] {
    const size_t given = planned.param.integers("propagate_down").size();
    if (given != 0 && given != bottoms.size()) {
      fail(ErrorKind::kField, "propagate_down must be given once for each bottom: ", bottoms.size(), " times, not ",
           given);
    }
  });
  good &= check([&] {
    const size_t given = planned.param.reals("loss_weight").size();
    if (given != 0 && given != to.top.size()) {
      fail(ErrorKind::kField, "loss_weight must be given once for each top: ", to.top.size(), " times, not ", given);
    }
  });
  return good;
}

// Makes the layer itself, its parameters and its tops' shapes.
void Net::make(const Planned& planned, NetLayer& to) {
  const auto phase =
      to.param.has("phase") ? (to.param.text("phase") == "TRAIN" ? Phase::kTrain : Phase::kTest) : phase_;
  to.layer = to.spec->create(to.param, phase);
  to.layer->precision = options_.precision;
  to.layer->copies = copies_;
  to.layer->winograd = options_.winograd;

  auto& weights = to.layer->loss_weights;
  for (const double weight : to.param.reals("loss_weight")) weights.push_back(static_cast<float>(weight));
  if (weights.empty()) weights.assign(to.top.size(), 0.0f);
  if (to.spec->is_loss && to.param.reals("loss_weight").empty()) weights[0] = 1.0f;
  for (size_t i = 0; i < to.top.size(); ++i) loss_weights_[to.top_ids[i]] = weights[i];

  const bool opaque = to.spec->is_opaque && problems_ != nullptr;
  if (!opaque) to.layer->setup(to.bottom, to.top);
  if (to.spec->is_source || opaque) supply_shapes(to, opaque);
  if (!opaque) {
    reshape_layer(to);
    add_params(to);
  }

  // After the parameters: their lr_mult decides as well.
  bool learns = false;
  for (size_t i = 0; i < to.layer->params.size(); ++i) {
    if (to.layer->param_gradient[i]) learns = true;
  }
  const auto& asked = planned.param.integers("propagate_down");
  for (size_t i = 0; i < to.bottom_ids.size(); ++i) {
    const bool below = blob_needs_backward_[to.bottom_ids[i]];
    learns |= below;
    to.propagate_down.push_back(asked.empty() ? below : asked[i] != 0);
  }
  to.needs_backward = learns;
  if (learns) {
    for (const int id : to.top_ids) blob_needs_backward_[id] = true;
  }
}

// Shapes of tops that the layer itself leaves open; all of them, where it is opaque.
void Net::supply_shapes(NetLayer& to, bool opaque) {
  for (size_t i = 0; i < to.top.size(); ++i) {
    const bool in_place = std::find(to.bottom_ids.begin(), to.bottom_ids.end(), to.top_ids[i]) != to.bottom_ids.end();
    bool known = to.top[i]->count() != 0 && (!opaque || in_place);
    if (supplied_ != nullptr) {
      const auto shape = supplied_->find(to.top[i]->name);
      if (shape != supplied_->end()) {
        to.top[i]->reshape(shape->second);
        known = to.top[i]->count() != 0;
      }
    }
    if (known) continue;
    if (problems_ == nullptr) {
      fail(ErrorKind::kShape, "the shape of its top `", to.top[i]->name,
           "` is not known; an Input or RDDData layer can give it");
    }
    known_[to.top_ids[i]] = false;
  }
}

void Net::add_params(NetLayer& to) {
  const auto& specs = to.param.messages("param");
  auto& params = to.layer->params;
  if (specs.size() > params.size()) {
    fail(ErrorKind::kParam, "`param` is given ", specs.size(), " times, but the layer has ",
         number_of(static_cast<int>(params.size()), static_cast<int>(params.size()), "parameter"));
  }
  const Message unset = to.param.empty("param");
  for (size_t i = 0; i < params.size(); ++i) {
    const Message& spec = i < specs.size() ? specs[i] : unset;
    check_filler(to.layer->fillers[i], params[i]->shape());
    // Running statistics declare that no solver may touch them.
    const bool learned = to.layer->param_gradient[i];
    const double lr_mult = learned ? spec.real("lr_mult") : 0.0;
    const double decay_mult = learned ? spec.real("decay_mult") : 0.0;
    to.layer->param_gradient[i] = lr_mult != 0.0;

    const std::string& name = spec.text("name");
    const auto owner = param_names_.find(name);
    if (!name.empty() && owner != param_names_.end()) {
      to.param_ids.push_back(owner->second);
      share_param(to, static_cast<int>(i), spec, learnable_[owner->second]);
      continue;
    }
    const int id = static_cast<int>(learnable_.size());
    if (!name.empty()) param_names_[name] = id;
    to.param_ids.push_back(id);
    params[i]->name = join(to.name, "[", i, "]");
    learnable_.push_back({params[i], to.layer->fillers[i], to.name, to.type, static_cast<int>(i),
                          static_cast<float>(lr_mult), static_cast<float>(decay_mult), spec.has("lr_mult"),
                          spec.has("decay_mult"), flat_count_});
    flat_count_ += params[i]->count();
  }
}

// The parameter becomes the owner's; multipliers that both give must agree.
void Net::share_param(NetLayer& to, int index, const Message& spec, Learnable& owner) {
  Blob& blob = *to.layer->params[index];
  const bool permissive = spec.text("share_mode") == "PERMISSIVE";
  if (permissive ? blob.count() != owner.blob->count() : blob.shape() != owner.blob->shape()) {
    fail(ErrorKind::kParam, "shares parameter `", spec.text("name"), "` with layer `", owner.layer,
         "`, but its shape is ", to_string(blob.shape()), " here and ", to_string(owner.blob->shape()), " there",
         permissive ? "" : " (share_mode: PERMISSIVE asks for equal counts only)");
  }
  const auto agree = [&](const char* field, float& value, bool& given) {
    if (!spec.has(field)) return;
    if (given && !same_multiplier(spec.real(field), value)) {
      fail(ErrorKind::kParam, "shares parameter `", spec.text("name"), "` with layer `", owner.layer, "`, but its ",
           field, " is ", spec.real(field), " here and ", value, " there");
    }
    value = static_cast<float>(spec.real(field));
    given = true;
  };
  agree("lr_mult", owner.lr_mult, owner.lr_given);
  agree("decay_mult", owner.decay_mult, owner.decay_given);
  blob.data.share(owner.blob->data);
  blob.diff.share(owner.blob->diff);
}

// Gradients are computed only where they end in a learned parameter and come from the objective; by name, since a blob
// that is written in place is one blob.
void Net::plan_backward(bool force) {
  std::set<int> under_loss, skipped;
  for (auto at = layers_.rbegin(); at != layers_.rend(); ++at) {
    NetLayer& layer = *at;
    layer.propagate_down.resize(layer.bottom_ids.size(), false);
    if (!layer.layer) continue;
    bool contributes = false, all_skipped = true;
    for (size_t i = 0; i < layer.top_ids.size(); ++i) {
      const int id = layer.top_ids[i];
      if (layer.layer->loss_weights[i] != 0.0f || under_loss.count(id)) contributes = true;
      if (!skipped.count(id)) all_skipped = false;
    }
    if (layer.needs_backward && all_skipped) {
      layer.needs_backward = false;
      layer.propagate_down.assign(layer.bottom_ids.size(), false);
    }
    if (!contributes) {
      layer.needs_backward = false;
      layer.propagate_down.assign(layer.bottom_ids.size(), false);
    }
    for (size_t i = 0; i < layer.bottom_ids.size(); ++i) {
      if (contributes) under_loss.insert(layer.bottom_ids[i]);
      if (!layer.propagate_down[i]) skipped.insert(layer.bottom_ids[i]);
    }
  }
  if (!force) return;
  for (NetLayer& layer : layers_) {
    if (!layer.layer) continue;
    layer.needs_backward = true;
    for (size_t i = 0; i < layer.bottom_ids.size(); ++i) {
      if (layer.layer->allows_gradient(static_cast<int>(i))) layer.propagate_down[i] = true;
    }
    for (size_t i = 0; i < layer.param_ids.size(); ++i) layer.layer->param_gradient[i] = true;
  }
}

// Says in time, and of a layer, what allocating would find out in the middle of a pass.
void Net::check_memory() {
  constexpr int64_t kFloat = sizeof(float);
  std::set<const void*> seen;
  int64_t bytes = memory_used();
  for (const NetLayer& layer : layers_) {
    attempt(layer.index, layer.name, layer.type, [&] {
      for (const auto& param : layer.layer->params) {
        if (seen.insert(param->data.identity()).second) bytes += 2 * kFloat * param->count();  // and the gradient
      }
      for (const Blob* top : layer.top) {
        if (seen.insert(top->data.identity()).second) bytes += kFloat * top->count();
      }
      if (bytes <= memory_limit()) return;
      fail(ErrorKind::kMemory, "with it the values take ", memory_text(bytes), ", and the engine may use ",
           memory_text(memory_limit()), "; take a smaller batch, or raise set_memory_limit()");
    });
  }
}

void Net::place_params() {
  flat_data_ = allocate(flat_count_);
  flat_diff_ = allocate(flat_count_);
  for (const Learnable& param : learnable_) {
    // What the setup of a layer in Python has written.
    std::vector<float> first;
    if (!param.blob->data.is_zero())
      first.assign(param.blob->data.read(), param.blob->data.read() + param.blob->count());
    param.blob->data.place({flat_data_, flat_data_.get() + param.offset});
    if (!first.empty()) std::copy(first.begin(), first.end(), param.blob->data.overwrite());
    param.blob->diff.place({flat_diff_, flat_diff_.get() + param.offset});
  }
}

void Net::fill_params(uint64_t seed) {
  for (const Learnable& param : learnable_) {
    if (!param.blob->data.is_zero()) continue;  // has its first values already
    attempt(-1, param.layer, param.type, [&] {
      // By name, not by place: a layer added elsewhere leaves the others' first weights as they were.
      fill(param.blob->data, param.filler, mix(mix(seed, hash(param.layer)), static_cast<uint64_t>(param.index)));
    });
  }
}

}  // namespace sparknet
