// The layer contract and the registry of layer types.
//
// A layer type is one file in layers/: a class with the four verbs below and one REGISTER_LAYER line, which also tells
// the language what the type is called, which message holds its fields, how many bottoms and tops it takes. Nothing
// else has to know about it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/message.h"
#include "core/tensor.h"

namespace sparknet {

enum class Phase { kTrain = 0, kTest = 1 };

// In which layers multiply; values between layers, parameters, gradients and sums are float32 in any case.
enum class Precision { kFloat32 = 0, kBfloat16 = 1 };

using Blobs = std::vector<Blob*>;

class Bfloat16Copies;  // core/dnnl_util.h

class Layer {
 public:
  // `param` is the LayerParameter.
  Layer(const Message& param, Phase phase) : param_(param), phase_(phase) {}
  virtual ~Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  // Once, before the first reshape: checks fields, declares parameters with add_param. Allocates no arrays: the same
  // code is the compiler's dry run.
  virtual void setup(const Blobs& bottom, const Blobs& top) {
    (void)bottom;
    (void)top;
  }
  // The shape rule: sets the tops' shapes from the bottoms'. Called again whenever a bottom may have another shape.
  // Allocates no arrays either: what depends on shapes and is costly is made in the first forward after it.
  virtual void reshape(const Blobs& bottom, const Blobs& top) = 0;
  // Once, when parameters have their memory and their first values; never in the dry run. For tops that hold something
  // before the first forward pass.
  virtual void begin(const Blobs& top) { (void)top; }
  // Computes the tops' data.
  virtual void forward(const Blobs& bottom, const Blobs& top) = 0;
  // Overwrites the bottoms' diff where `propagate_down` says so, adds to the parameters' diff where `param_gradient`
  // does.
  virtual void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) = 0;
  // Asked once of each layer that directly follows and works in place on this one's only top, until the first kNothing:
  // what of its work this layer does in its own loops from then on, in passes for which `fused` is set.
  enum class Absorbs { kNothing, kForward, kBoth };
  virtual Absorbs absorb(const Layer& next) {
    (void)next;
    return Absorbs::kNothing;
  }
  // Gives memory back that only a backward pass after the last forward pass would need.
  virtual void forget() {}
  // Whether a forward pass can be made again: it depends on bottoms, parameters and random_key alone, and leaves no
  // trace but its tops where `again` is set.
  virtual bool repeats() const { return true; }
  // Whether backward() reads the data of the bottoms, or of the tops; if no layer does, a blob's memory can go to
  // others once its last reader has run.
  virtual bool keeps_bottom() const { return true; }
  virtual bool keeps_top() const { return true; }
  // Multiplications followed by an addition in one forward pass.
  virtual int64_t multiply_adds(const Blobs& bottom, const Blobs& top) const {
    (void)bottom;
    (void)top;
    return 0;
  }

  // Whether a gradient can be asked of bottom `index` (labels: no).
  virtual bool allows_gradient(int index) const {
    (void)index;
    return true;
  }

  const Message& param() const { return param_; }
  Phase phase() const { return phase_; }
  std::string name() const { return param_.text("name"); }

  // Learned parameters, and running statistics.
  std::vector<std::shared_ptr<Blob>> params;
  // How each is initialised: a FillerParameter.
  std::vector<Message> fillers;
  // Whether each one's gradient is wanted; the net sets it from lr_mult and force_backward.
  std::vector<bool> param_gradient;
  // Of each top: its weight in the objective, 0 for none. The net sets it.
  std::vector<float> loss_weights;
  // Whether a backward pass may ask this layer for anything; the net sets it.
  bool needs_backward = true;
  // The net sets these before setup(); the copies are null in float32.
  Precision precision = Precision::kFloat32;
  bool winograd = true;  // whether convolutions may save multiplications
  std::shared_ptr<Bfloat16Copies> copies;
  // What random numbers of the next forward pass are a function of; the net sets it before each.
  uint64_t random_key = 0;
  // Whether the next forward pass does the absorbed layers' work, too; the net sets it before each. A backward pass
  // goes by the last forward pass.
  bool fused = false;
  // Whether the next forward pass is the last one made again: running statistics have had its values already.
  bool again = false;

 protected:
  void add_param(const Shape& shape, const Message& filler) {
    auto blob = std::make_shared<Blob>();
    blob->reshape(shape);
    params.push_back(std::move(blob));
    fillers.push_back(filler);
    param_gradient.push_back(true);
  }

 private:
  const Message param_;
  const Phase phase_;
};

// Whether it is max(x, 0), which others may do in their own loops.
inline bool rectifies(const Layer& layer) {
  return layer.param().text("type") == "ReLU" && layer.param().message("relu_param").real("negative_slope") == 0.0;
}

// What the language and the net know about a layer type; each setter returns the spec, for one expression per type.
struct LayerSpec {
  LayerSpec(std::string type_name, std::string one_line) : type(std::move(type_name)), summary(std::move(one_line)) {}

  static constexpr int kAny = -1;

  std::string type;
  std::string summary;
  std::vector<std::string> message_fields;
  std::vector<std::string> positional_fields;
  std::vector<std::string> extension_fields;
  std::vector<std::string> bottoms_named;
  int min_bottoms = 1, max_bottoms = 1;
  int min_tops = 1, max_tops = 1;
  bool equal_tops = false;
  bool may_be_in_place = false;
  bool backward_reads_bottom = false, backward_reads_top = false;
  bool is_loss = false;
  bool is_source = false;
  bool is_opaque = false;
  int most_params = 0;
  std::unique_ptr<Layer> (*create)(const Message&, Phase) = nullptr;

  // Fields of LayerParameter in which the type's settings stand, searched in this order.
  LayerSpec& messages(std::vector<std::string> fields) { return message_fields = std::move(fields), *this; }
  // Settings that may be given by position.
  LayerSpec& positional(std::vector<std::string> fields) { return positional_fields = std::move(fields), *this; }
  // Fields that forks have added to Caffe's own messages and that the type heeds; any other is refused.
  LayerSpec& extensions(std::vector<std::string> fields) { return extension_fields = std::move(fields), *this; }
  // What the bottoms mean, for error messages.
  LayerSpec& named(std::vector<std::string> names) { return bottoms_named = std::move(names), *this; }
  LayerSpec& bottoms(int least, int most) { return min_bottoms = least, max_bottoms = most, *this; }
  LayerSpec& tops(int least, int most) { return min_tops = least, max_tops = most, *this; }
  // As many tops as bottoms.
  LayerSpec& same_tops() { return equal_tops = true, *this; }
  // Its top may be its bottom.
  LayerSpec& in_place() { return may_be_in_place = true, *this; }
  // backward() reads the bottoms' or the tops' data: whoever overwrites them in place afterwards corrupts gradients.
  LayerSpec& reads_bottom() { return backward_reads_bottom = true, *this; }
  LayerSpec& reads_top() { return backward_reads_top = true, *this; }
  // Its first top has loss weight 1 unless told otherwise.
  LayerSpec& loss() { return is_loss = true, *this; }
  // Its tops are filled from outside.
  LayerSpec& source() { return is_source = true, *this; }
  // Code of the user's decides on its shapes and parameters, on every pass anew. The dry run does not run it.
  LayerSpec& opaque() { return is_opaque = true, *this; }
  LayerSpec& most(int parameters) { return most_params = parameters, *this; }
};

class Registry {
 public:
  // In the order of their names.
  static const std::vector<const LayerSpec*>& all();
  // Null for an unknown type.
  static const LayerSpec* find(const std::string& type);

  template <typename Type>
  static bool add(LayerSpec spec) {
    spec.create = [](const Message& param, Phase phase) -> std::unique_ptr<Layer> {
      return std::make_unique<Type>(param, phase);
    };
    return add_spec(std::move(spec));
  }

 private:
  static bool add_spec(LayerSpec spec);
};

#define REGISTER_LAYER(Class, spec) static const bool registered_##Class = ::sparknet::Registry::add<Class>(spec)

}  // namespace sparknet
