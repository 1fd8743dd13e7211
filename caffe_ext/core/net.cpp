#include "core/net.h"

#include <algorithm>
#include <new>

#include "core/failure.h"
#include "core/machine.h"
#include "core/memory.h"
#include "core/random.h"

namespace sparknet {

namespace {

// Holders of pinned tensors find the results of a call in row-major memory, also when the call failed.
class Settler {
 public:
  explicit Settler(const Net& net) : net_(net) { use_threads(); }
  ~Settler() {
    try {
      net_.settle();
    } catch (const std::exception&) {
      // Only memory can be short here; the values stay in the layout that they have.
    }
  }
  Settler(const Settler&) = delete;
  Settler& operator=(const Settler&) = delete;

 private:
  const Net& net_;
};

// Notes the shapes of the layer's bottoms and tops.
void note_shapes(const NetLayer& layer, std::vector<Shape>& shapes) {
  shapes.clear();
  for (const Blob* blob : layer.bottom) shapes.push_back(blob->shape());
  for (const Blob* blob : layer.top) shapes.push_back(blob->shape());
}

// Whether they are as noted.
bool same_shapes(const NetLayer& layer, const std::vector<Shape>& shapes) {
  if (shapes.size() != layer.bottom.size() + layer.top.size()) return false;
  const auto as_noted = [](const Blob* blob, const Shape& shape) { return blob->shape() == shape; };
  const auto tops = shapes.begin() + static_cast<std::ptrdiff_t>(layer.bottom.size());
  return std::equal(layer.bottom.begin(), layer.bottom.end(), shapes.begin(), as_noted) &&
         std::equal(layer.top.begin(), layer.top.end(), tops, as_noted);
}

}  // namespace

// Runs `body`; its errors learn the layer's name, and are thrown on or, in the dry run, noted. False when noted.
bool Net::attempt(int index, const std::string& name, const std::string& type, const std::function<void()>& body) {
  const auto note = [&](Error error) {
    error.set_layer(name, type);
    if (problems_ == nullptr) throw error;
    problems_->push_back({index, name, type, error.kind(), error.what(), error.bottom()});
  };
  try {
    body();
    return true;
  } catch (const Error& error) {
    note(error);
  } catch (const std::bad_alloc&) {
    note(Error(ErrorKind::kMemory, "out of memory"));
  } catch (const std::exception& error) {
    note(unforeseen(error));
  }
  return false;
}

void Net::reshape_layer(NetLayer& layer) {
  layer.layer->reshape(layer.bottom, layer.top);
  note_shapes(layer, layer.shapes_seen);
  if (problems_ != nullptr) return;  // the dry run writes nothing
  for (size_t i = 0; i < layer.top.size(); ++i) {
    const float weight = layer.layer->loss_weights[i];
    Tensor& diff = layer.top[i]->diff;
    // The weight stands in the loss top's diff, once: who overwrites it changes the gradients, as in Caffe.
    if (weight != 0.0f && diff.is_zero()) std::fill_n(diff.overwrite(), diff.count(), weight);
  }
}

void Net::check_range(int begin, int end) const {
  const int layers = static_cast<int>(layers_.size());
  if (begin >= 0 && end <= layers) return;
  fail(ErrorKind::kState, "there are no layers ", begin, " to ", end, ": the net has ", layers);
}

double Net::forward(int begin, int end, bool new_pass) {
  check_range(begin, end);
  const Settler settler(*this);
  if (new_pass) ++passes_;
  double loss = 0.0;
  int last = 0;
  for (int i = begin; i < end; i = last + 1) {
    last = i + layers_[i].absorbed;
    if (last >= end) last = i;
    loss += run(i, last);
    if (options_.memory == Memory::kAll) continue;
    const Segment* segment = segments_.empty() ? nullptr : &segments_[layers_[i].segment];
    const bool repeats = segment != nullptr && segment->repeats;
    for (int done = i; done <= last; ++done) {
      if (repeats) layers_[done].layer->forget();
      for (Tensor* dead : repeats ? segment->dead[done - segment->begin] : dead_after_forward_[done]) dead->drop();
    }
  }
  present_ = -1;
  return loss;
}

// The forward pass of layer `index`, which does those after it up to `last` as well; their part of the objective.
double Net::run(int index, int last) {
  const uint64_t key = mix(seed_, passes_);
  for (int i = index; i <= last; ++i) {
    NetLayer& layer = layers_[i];
    attempt(layer.index, layer.name, layer.type, [&] {
      if (!same_shapes(layer, layer.shapes_seen) || layer.spec->is_opaque) reshape_layer(layer);
      layer.shapes_run.clear();
      if (!layer.layer->again) layer.layer->random_key = mix(key, static_cast<uint64_t>(i));
    });
  }
  NetLayer& first = layers_[index];
  first.layer->fused = last > index;
  double loss = 0.0;
  attempt(first.index, first.name, first.type, [&] {
    first.layer->forward(first.bottom, first.top);
    for (int i = index; i <= last; ++i) note_shapes(layers_[i], layers_[i].shapes_run);
    for (size_t j = 0; j < first.top.size(); ++j) {
      if (first.layer->loss_weights[j] == 0.0f) continue;
      const Blob& top = *first.top[j];
      const float* values = top.data.read();
      const float* weights = top.diff.read();
      double sum = 0.0;
      for (int64_t at = 0; at < top.count(); ++at) sum += static_cast<double>(values[at]) * weights[at];
      loss += sum;
    }
  });
  return loss;
}

void Net::backward(int begin, int end) {
  check_range(begin, end);
  const Settler settler(*this);
  for (int i = end - 1; i >= begin; --i) {
    NetLayer& layer = layers_[i];
    const bool ready = segments_.empty() || !segments_[layer.segment].repeats || present_ == layer.segment;
    if (!ready && layer.needs_backward && same_shapes(layer, layer.shapes_run)) {
      present_ = layer.segment;
      repeat(layer.segment);
    }
    attempt(layer.index, layer.name, layer.type, [&] {
      if (!layer.needs_backward) return;
      const int leader = layer.absorbed_by;
      if (leader >= 0 && layers_[leader].layer->fused && !layers_[leader].shapes_run.empty()) {
        if (leader < begin) refuse_cut(leader);
        return;
      }
      if (layer.layer->fused && i + layer.absorbed_backward >= end) refuse_cut(i);
      if (!same_shapes(layer, layer.shapes_run)) {
        fail(ErrorKind::kState, "backward needs a forward pass before it, with the same shapes");
      }
      layer.layer->backward(layer.top, layer.propagate_down, layer.bottom);
    });
    if (options_.memory == Memory::kAll) continue;
    layer.layer->forget();
    layer.shapes_run.clear();
    for (Tensor* dead : dead_after_backward_[i]) dead->drop();
  }
}

// A backward pass may not begin or end amid layers that have run forward as one.
void Net::refuse_cut(int leader) const {
  const NetLayer &first = layers_[leader], &last = layers_[leader + first.absorbed_backward];
  fail(ErrorKind::kState, "layers `", first.name, "` to `", last.name,
       "` have run forward as one: run them backward together, or build the net with fusion=False");
}

void Net::reshape() {
  const Settler settler(*this);
  for (NetLayer& layer : layers_) attempt(layer.index, layer.name, layer.type, [&] { reshape_layer(layer); });
}

void Net::clear_param_diffs() {
  const Settler settler(*this);
  for (const Learnable& param : learnable_) param.blob->diff.zero();
}

bool Net::share_params(const Net& other) {
  const Settler settler(*this);
  std::map<int, const Blob*> sources;  // by number of the parameter here
  for (const NetLayer& from : other.layers_) {
    for (const NetLayer& layer : layers_) {
      if (layer.name != from.name) continue;
      const auto& theirs = from.layer->params;
      attempt(layer.index, layer.name, layer.type, [&] {
        if (theirs.size() != layer.param_ids.size()) {
          fail(ErrorKind::kParam, "has ", layer.param_ids.size(), " parameters here and ", theirs.size(),
               " in the other net");
        }
        for (size_t i = 0; i < theirs.size(); ++i) {
          const Shape& shape = layer.layer->params[i]->shape();
          if (theirs[i]->shape() != shape) {
            fail(ErrorKind::kParam, "parameter ", i, " is ", to_string(shape), " here and ",
                 to_string(theirs[i]->shape()), " in the other net");
          }
          sources[layer.param_ids[i]] = theirs[i].get();
        }
      });
    }
  }
  bool changed = false;
  for (NetLayer& layer : layers_) {
    for (size_t i = 0; i < layer.param_ids.size(); ++i) {
      const auto source = sources.find(layer.param_ids[i]);
      if (source == sources.end() || layer.layer->params[i]->data.shares_with(source->second->data)) continue;
      layer.layer->params[i]->data.share(source->second->data);
      changed = true;
    }
  }
  // Tops that are parameters follow.
  for (NetLayer& layer : layers_) {
    if (!layer.param_ids.empty()) layer.layer->begin(layer.top);
  }
  return changed;
}

void Net::set_seed(uint64_t seed) {
  seed_ = seed;
  passes_ = 0;
}

void Net::settle() const {
  for (const auto& blob : blobs_) {
    blob->data.settle();
    blob->diff.settle();
  }
  for (const NetLayer& layer : layers_) {
    for (const auto& param : layer.layer->params) {
      param->data.settle();
      param->diff.settle();
    }
  }
}

}  // namespace sparknet
