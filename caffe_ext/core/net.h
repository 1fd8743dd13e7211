// A network: layers wired by the names of their blobs, as BVLC Caffe 1.0 does it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/layer.h"
#include "core/message.h"
#include "core/tensor.h"

namespace sparknet {

// What a network is built for; the layers' include and exclude rules choose by it.
struct NetState {
  Phase phase = Phase::kTest;
  int64_t level = 0;
  std::vector<std::string> stages;
};

// What blobs keep after a pass. All of them their values; or memory is given to others as soon as no layer needs what
// it holds: values in a forward pass, unless the backward pass reads them, values and gradients in a backward pass; or,
// in addition, the backward pass computes values again, from a few that are kept, as it needs them. With the latter two
// passes run through the layers in order.
enum class Memory { kAll = 0, kReuse = 1, kLean = 2 };

// How a network computes; what it computes is the same but for rounding.
struct NetOptions {
  Memory memory = Memory::kAll;
  // Layers that work in place may be done by the layer before them.
  bool fuse = true;
  // In which layers multiply; values, parameters and gradients are float32.
  Precision precision = Precision::kFloat32;
  // Convolutions in float32 take core/winograd.h where it is faster; it rounds in another way than their definition.
  bool winograd = true;
};

// One thing that is wrong with a layer.
struct Problem {
  int index;  // in NetParameter.layer; -1: an automatic Split
  std::string layer;
  std::string type;
  ErrorKind kind;
  std::string reason;
  int bottom;  // to blame; -1: none in particular
};

// A layer in its place.
struct NetLayer {
  int index = -1;  // in NetParameter.layer; -1: an automatic Split
  Message param;
  std::string name;
  std::string type;
  const LayerSpec* spec = nullptr;
  std::unique_ptr<Layer> layer;  // null where the dry run could not make it
  std::vector<int> bottom_ids;   // in Net::blobs
  std::vector<int> top_ids;
  Blobs bottom;
  Blobs top;
  std::vector<bool> propagate_down;  // for each bottom
  bool needs_backward = false;
  std::vector<int> param_ids;      // for each parameter, in Net::learnable
  std::vector<Shape> shapes_seen;  // of bottoms and tops after the last reshape
  int segment = 0;                 // in Net::segments_
  int absorbed = 0;                // so many layers that follow are done by this one's forward pass
  int absorbed_backward = 0;       // and of those by its backward pass
  int absorbed_by = -1;            // the layer whose backward pass does this one's
  std::vector<Shape> shapes_run;   // and after the last forward pass; empty where there is none that ended well
};

// A parameter with a memory of its own; layers that share it all use this one.
struct Learnable {
  std::shared_ptr<Blob> blob;
  Message filler;
  std::string layer;  // of the owner
  std::string type;
  int index;  // among the owner's parameters
  float lr_mult;
  float decay_mult;
  bool lr_given;
  bool decay_given;
  int64_t offset;  // in the flat arrays
};

class Net {
 public:
  // `param` is a NetParameter in current syntax. Parameters are filled as a function of `seed` and their layers' names.
  // `supplied`: shapes of source tops that the message does not tell. Throws Error(kField) for a precision that the
  // machine does not have.
  Net(const Message& param, const NetState& state, uint64_t seed, const std::map<std::string, Shape>& supplied,
      const NetOptions& options = {});
  ~Net();
  Net(const Net&) = delete;
  Net& operator=(const Net&) = delete;

  // The dry run: everything that the constructor finds out, no arrays. Goes on after an error: what a faulty layer
  // would make is unknown, and layers that read unknown blobs are not asked. `supplied`: shapes of source tops.
  static std::unique_ptr<Net> check(const Message& param, const NetState& state,
                                    const std::map<std::string, Shape>& supplied, std::vector<Problem>& problems);

  // Runs the layers [begin, end); the sum over loss tops of weight × sum of values. A pass may be run in pieces: all
  // but the first are no new pass, so that random numbers are those of the whole.
  double forward(int begin, int end, bool new_pass = true);
  // Runs backward from layer end - 1 down to `begin`.
  void backward(int begin, int end);
  double forward() { return forward(0, static_cast<int>(layers_.size())); }
  void backward() { backward(0, static_cast<int>(layers_.size())); }
  // Gives all tops the shapes that follow from the inputs' shapes.
  void reshape();
  void clear_param_diffs();
  // Gives every layer that `other` has by the same name the values of the parameters there: one memory for both nets.
  // The flat arrays then no longer hold all. False where that was so before. Throws Error(kParam), and changes nothing,
  // where numbers or shapes differ.
  bool share_params(const Net& other);
  // From here on random numbers are a function of `seed` and the number of forward passes since.
  void set_seed(uint64_t seed);
  // To be called after every change of tensors from outside the net's own methods.
  void settle() const;

  const std::string& name() const { return name_; }
  Phase phase() const { return phase_; }
  const std::vector<NetLayer>& layers() const { return layers_; }
  const std::vector<std::shared_ptr<Blob>>& blobs() const { return blobs_; }
  // Whether a blob's shape is known; always, but for a dry run.
  bool known(int blob) const { return known_[blob]; }
  float loss_weight(int blob) const { return loss_weights_[blob]; }
  const std::vector<int>& inputs() const { return inputs_; }
  const std::vector<int>& outputs() const { return outputs_; }
  const std::vector<Learnable>& learnable() const { return learnable_; }
  // All learnable parameters one after the other, and their gradients.
  int64_t flat_count() const { return flat_count_; }
  const std::shared_ptr<float>& flat_data() const { return flat_data_; }
  const std::shared_ptr<float>& flat_diff() const { return flat_diff_; }

 private:
  // A layer that passed the filter.
  struct Planned {
    int index;
    Message param;
    std::vector<std::string> written_bottoms;  // before Split insertion renamed them
  };

  // Values or gradients in one memory: from their first writer to their last user in a forward pass.
  struct Life {
    int first_writer, last_writer, last_user;
    bool stays;  // for good
    bool kept;   // for the backward pass
    std::vector<Tensor*> names;

    int64_t bytes() const { return names.front()->count() * static_cast<int64_t>(sizeof(float)); }
  };

  // Layers [begin, end) that the backward pass runs forward again before it runs them backward.
  struct Segment {
    int begin, end;
    bool repeats;  // else their values are kept
    // For each layer, what the first forward pass need not keep; what the second one has no use for is among
    // dead_after_forward_.
    std::vector<std::vector<Tensor*>> dead;
  };

  Net() = default;
  void build(const Message& param, const NetState& state);
  std::vector<Planned> filter(const Message& param, const NetState& state);
  std::vector<Planned> insert_splits(std::vector<Planned> layers);
  void add_layer(Planned& planned);
  bool wire(const Planned& planned, NetLayer& to);
  void make(const Planned& planned, NetLayer& to);
  void supply_shapes(NetLayer& to, bool opaque);
  void add_params(NetLayer& to);
  void share_param(NetLayer& to, int index, const Message& spec, Learnable& owner);
  void plan_backward(bool force);
  void check_memory();
  void check_range(int begin, int end) const;
  void place_params();
  void fill_params(uint64_t seed);
  void reshape_layer(NetLayer& layer);
  void plan_fusion();
  std::map<const void*, Life> lives(bool gradients) const;
  void plan_drops();
  void plan_segments(std::map<const void*, Life>& values);
  void repeat(int segment);
  double run(int index, int last);
  void refuse_cut(int leader) const;
  bool attempt(int index, const std::string& name, const std::string& type, const std::function<void()>& body);

  std::string name_;
  Phase phase_ = Phase::kTest;
  std::shared_ptr<Bfloat16Copies> copies_;  // of all layers
  std::vector<NetLayer> layers_;
  std::vector<std::shared_ptr<Blob>> blobs_;
  std::vector<bool> known_;
  std::vector<float> loss_weights_;
  std::vector<int> inputs_;
  std::vector<int> outputs_;
  std::vector<Learnable> learnable_;
  std::shared_ptr<float> flat_data_;
  std::shared_ptr<float> flat_diff_;
  int64_t flat_count_ = 0;
  NetOptions options_;
  // For each layer, what nobody needs any more after its forward or its backward pass.
  std::vector<std::vector<Tensor*>> dead_after_forward_, dead_after_backward_;
  std::vector<Segment> segments_;
  int present_ = -1;  // the segment that the backward pass has run forward again; -1: none yet
  uint64_t seed_ = 0;
  uint64_t passes_ = 0;

  // While building.
  std::vector<Problem>* problems_ = nullptr;  // null: the first problem is thrown
  const std::map<std::string, Shape>* supplied_ = nullptr;
  std::map<std::string, int> blob_ids_;
  std::map<std::string, int> available_;  // blobs that no layer has read yet
  std::map<std::string, int> param_names_;
  std::vector<bool> blob_needs_backward_;
};

}  // namespace sparknet
