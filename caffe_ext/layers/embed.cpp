#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "core/layer.h"
#include "core/loss.h"
#include "core/parallel.h"

namespace sparknet {

// A learned vector of num_output values for each of the numbers 0 .. input_dim - 1 in the bottom, plus a bias common to
// all: InnerProduct of one-hot vectors, without those. The top has one axis more than the bottom.
//
// Weights: input_dim × num_output. Numbers are truncated to whole ones; the bottom has no gradient.
class EmbedLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("embed_param");
    outputs_ = own.integer("num_output");
    inputs_ = own.integer("input_dim");
    if (outputs_ < 1) fail(ErrorKind::kField, "num_output must be at least 1");
    if (inputs_ < 1) fail(ErrorKind::kField, "input_dim must be at least 1");
    add_param({inputs_, outputs_}, own.message("weight_filler"));
    bias_ = own.flag("bias_term");
    if (bias_) add_param({outputs_}, own.message("bias_filler"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    Shape shape = bottom[0]->shape();
    shape.push_back(outputs_);
    top[0]->reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* values = bottom[0]->data.read();
    numbers_.resize(bottom[0]->count());
    for (int64_t i = 0; i < bottom[0]->count(); ++i) {
      const int64_t number = numbers_[i] = to_label(values[i]);
      if (number >= 0 && number < inputs_) continue;
      throw Error(ErrorKind::kData,
                  join("value ", values[i], " (number ", i, " of `", bottom[0]->name, "`) is not one of 0 .. ",
                       inputs_ - 1, " (input_dim ", inputs_, ")"),
                  0);
    }
    const float* weights = params[0]->data.read();
    const float* bias = bias_ ? params[1]->data.read() : nullptr;
    float* y = top[0]->data.overwrite();
    parallel_for(bottom[0]->count(), std::max<int64_t>(kElementGrain / outputs_, 1), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float* from = weights + numbers_[i] * outputs_;
        float* to = y + i * outputs_;
        if (bias == nullptr) {
          std::copy(from, from + outputs_, to);
        } else {
          for (int64_t k = 0; k < outputs_; ++k) to[k] = from[k] + bias[k];
        }
      }
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[0]) {
      throw Error(
          ErrorKind::kState,
          join("Embed has no gradient with respect to its bottom, but a layer below or force_backward asks for ",
               "one (of `", bottom[0]->name, "`); write propagate_down: false into the layer or drop force_backward"),
          0);
    }
    const int64_t rows = bottom[0]->count();
    const float* dy = top[0]->diff.read();
    float* weights = param_gradient[0] ? params[0]->diff.write() : nullptr;
    float* bias = bias_ && param_gradient[1] ? params[1]->diff.write() : nullptr;
    // Threads share out the columns: two rows may be of the same number.
    const int64_t grain = std::max<int64_t>(kElementGrain / std::max<int64_t>(rows, 1), 16);
    parallel_for(outputs_, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < rows; ++i) {
        const float* from = dy + i * outputs_;
        if (weights != nullptr) {
          float* to = weights + numbers_[i] * outputs_;
          for (int64_t k = begin; k < end; ++k) to[k] += from[k];
        }
        if (bias != nullptr) {
          for (int64_t k = begin; k < end; ++k) bias[k] += from[k];
        }
      }
    });
  }

 private:
  int64_t inputs_ = 0, outputs_ = 0;
  std::vector<int64_t> numbers_;  // of the last forward pass: the bottom may have been written since
  bool bias_ = true;
};

REGISTER_LAYER(EmbedLayer, LayerSpec("Embed", "a learned vector for each number")
                               .messages({"embed_param"})
                               .positional({"num_output", "input_dim"})
                               .most(2));

}  // namespace sparknet
