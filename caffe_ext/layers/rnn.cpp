#include "core/matrix.h"
#include "core/parallel.h"
#include "core/recurrent.h"
#include "core/vector_math.h"
#include "core/wide.h"

namespace sparknet {

namespace {

SPARKNET_WIDE void squash(int64_t count, const float* from, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = fast_tanh(from[i]);
}

}  // namespace

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

  void step(const Cell& cell) override { squash(cell.count, cell.gates, state(0, cell.t + 1) + cell.at); }

  void step_back(const Cell& cell, const float* dh, float* da, int64_t) override {
    const float* h = state(0, cell.t + 1) + cell.at;
    for (int64_t i = 0; i < cell.count; ++i) da[i] = dh[i] * (1.0f - h[i] * h[i]);
  }

  void output(Blob& top) override {
    const float* bias = params[own_params() + 1]->data.read();
    outputs_.resize(top.count());
    h_.resize(top.count());
    copy_outputs(h_.data());
    const int64_t rows = steps() * streams();
    for (int64_t row = 0; row < rows; ++row) std::copy_n(bias, hidden(), outputs_.begin() + row * hidden());
    multiply('N', 'T', rows, hidden(), hidden(), h_.data(), params[own_params()]->data.read(), 1.0f, outputs_.data());
    parallel_for(top.count(), kElementGrain / 4, [this](int64_t begin, int64_t end) {
      squash(end - begin, outputs_.data() + begin, outputs_.data() + begin);
    });
    std::copy(outputs_.begin(), outputs_.end(), top.data.overwrite());
  }

  const float* output_back(const Blob& top) override {
    const int weights = own_params();
    const int64_t rows = steps() * streams();
    const float* gradient = top.diff.read();
    std::vector<float> da(top.count());
    for (int64_t i = 0; i < top.count(); ++i) da[i] = gradient[i] * (1.0f - outputs_[i] * outputs_[i]);
    if (param_gradient[weights]) {
      multiply('T', 'N', hidden(), hidden(), rows, da.data(), h_.data(), 1.0f, params[weights]->diff.write());
    }
    if (param_gradient[weights + 1]) add_column_sums(da.data(), rows, hidden(), params[weights + 1]->diff.write());
    dh_.resize(top.count());
    multiply('N', 'N', rows, hidden(), hidden(), da.data(), params[weights]->data.read(), 0.0f, dh_.data());
    return dh_.data();
  }

 private:
  std::vector<float> h_;        // of all steps, T × N × H
  std::vector<float> outputs_;  // of the last forward pass: somebody may work in place on the top
  std::vector<float> dh_;
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
