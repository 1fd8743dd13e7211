#include "core/matrix.h"
#include "core/parallel.h"
#include "core/recurrent.h"
#include "core/vector_math.h"

namespace sparknet {

// The simple recurrent network: h_t = tanh(W_xh x_t + b_h + W_hh cont_t h_(t-1)), and the top is
// o_t = tanh(W_ho h_t + b_o), T × N × H. W_ho (H × H) and b_o are its last parameters. States and bottoms:
// core/recurrent.h.
class RNNLayer : public RecurrentLayer {
 public:
  RNNLayer(const Message& param, Phase phase) : RecurrentLayer(param, phase, 1, 1) {}

  int64_t multiply_adds(const Blobs& bottom, const Blobs& top) const override {
    return RecurrentLayer::multiply_adds(bottom, top) + top[0]->count() * hidden();
  }

 protected:
  void add_own_params(const Message& fields) override {
    add_param({hidden(), hidden()}, fields.message("weight_filler"));
    add_param({hidden()}, fields.message("bias_filler"));
  }

  void step(int64_t t, const float*) override { squash(gate_values(t), state(0, t + 1), streams() * hidden()); }

  void step_back(int64_t t, const float*, const float* dh, std::vector<std::vector<float>>&, float* da) override {
    unsquash(state(0, t + 1), dh, da, streams() * hidden());
  }

  void output(Blob& top) override {
    const float* bias = params[own_params() + 1]->data.read();
    outputs_.resize(top.count());
    const int64_t rows = steps() * streams();
    for (int64_t row = 0; row < rows; ++row) std::copy_n(bias, hidden(), outputs_.begin() + row * hidden());
    multiply('N', 'T', rows, hidden(), hidden(), state(0, 1), params[own_params()]->data.read(), 1.0f, outputs_.data());
    squash(outputs_.data(), outputs_.data(), top.count());
    std::copy(outputs_.begin(), outputs_.end(), top.data.overwrite());
  }

  void output_back(const Blob& top, float* dh) override {
    const int weights = own_params();
    const int64_t rows = steps() * streams();
    std::vector<float> da(top.count());
    unsquash(outputs_.data(), top.diff.read(), da.data(), top.count());
    if (param_gradient[weights]) {
      multiply('T', 'N', hidden(), hidden(), rows, da.data(), state(0, 1), 1.0f, params[weights]->diff.write());
    }
    if (param_gradient[weights + 1]) add_column_sums(da.data(), rows, hidden(), params[weights + 1]->diff.write());
    multiply('N', 'N', rows, hidden(), hidden(), da.data(), params[weights]->data.read(), 0.0f, dh);
  }

 private:
  // to = tanh(from).
  static void squash(const float* from, float* to, int64_t count) {
    parallel_for(count, kElementGrain / 4, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i] = fast_tanh(from[i]);
    });
  }

  // The gradient of tanh's argument, from its value and that one's gradient.
  static void unsquash(const float* value, const float* gradient, float* to, int64_t count) {
    parallel_for(count, kElementGrain, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i] = gradient[i] * (1.0f - value[i] * value[i]);
    });
  }

  std::vector<float> outputs_;  // of the last forward pass: somebody may work in place on the top
};

REGISTER_LAYER(RNNLayer, LayerSpec("RNN", "simple recurrent network over sequences")
                             .messages({"recurrent_param"})
                             .positional({"num_output"})
                             .named({"x", "cont", "static or state", "state"})
                             .bottoms(2, 4)
                             .tops(1, 2)
                             .reads_bottom()
                             .most(6));

}  // namespace sparknet
