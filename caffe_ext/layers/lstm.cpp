#include <cmath>

#include "core/elementwise.h"
#include "core/parallel.h"
#include "core/recurrent.h"

namespace sparknet {

// Long short-term memory (Hochreiter and Schmidhuber, 1997; with the gates of Donahue et al., "Long-term recurrent
// convolutional networks", CVPR 2015). The gates are i, f, o, g in this order, i, f, o through a sigmoid, g through
// tanh:
//
//   c_t = cont_t f c_(t-1) + i g,   h_t = o tanh(c_t)
//
// The top is h (T × N × H). States and bottoms: core/recurrent.h.
class LSTMLayer : public RecurrentLayer {
 public:
  LSTMLayer(const Message& param, Phase phase) : RecurrentLayer(param, phase, kGates, 2) {}

 protected:
  void step(int64_t t, const float* cont) override {
    float *gates = gate_values(t), *h = state(0, t + 1), *c = state(1, t + 1);
    const float* c_before = state(1, t);
    for_units(gates, [&](int64_t n, int64_t at, float* gate) {
      float &i = gate[0], &f = gate[hidden()], &o = gate[2 * hidden()], &g = gate[3 * hidden()];
      i = sigmoid(i), f = sigmoid(f), o = sigmoid(o), g = std::tanh(g);
      c[at] = cont[n] * f * c_before[at] + i * g;
      h[at] = o * std::tanh(c[at]);
    });
  }

  void step_back(int64_t t, const float* cont, const float* dh, std::vector<std::vector<float>>& carried,
                 float* da) override {
    const float *gates = gate_values(t), *c = state(1, t + 1), *c_before = state(1, t);
    std::vector<float>& dc = carried[0];
    for_units(da, [&](int64_t n, int64_t at, float* to) {
      const float* gate = gates + (to - da);
      const float i = gate[0], f = gate[hidden()], o = gate[2 * hidden()], g = gate[3 * hidden()];
      const float squashed = std::tanh(c[at]);
      const float d = dc[at] + dh[at] * o * (1.0f - squashed * squashed);
      to[0] = d * g * i * (1.0f - i);
      to[hidden()] = d * cont[n] * c_before[at] * f * (1.0f - f);
      to[2 * hidden()] = dh[at] * squashed * o * (1.0f - o);
      to[3 * hidden()] = d * i * (1.0f - g * g);
      dc[at] = d * cont[n] * f;
    });
  }

  void output(Blob& top) override { std::copy_n(state(0, 1), top.count(), top.data.overwrite()); }
  void output_back(const Blob& top, float* dh) override { std::copy_n(top.diff.read(), top.count(), dh); }

 private:
  static constexpr int kGates = 4;

  // Calls body(stream, place in the state, the first of its gates in `values`) for each unit.
  template <typename Body>
  void for_units(float* values, const Body& body) const {
    constexpr int64_t kGrain = kElementGrain / 64;  // a unit costs five exponentials
    const int64_t width = hidden();
    parallel_for(streams() * width, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; ++at) {
        body(at / width, at, values + at / width * kGates * width + at % width);
      }
    });
  }
};

REGISTER_LAYER(LSTMLayer, LayerSpec("LSTM", "long short-term memory over sequences")
                              .messages({"recurrent_param"})
                              .positional({"num_output"})
                              .named({"x", "cont", "static or state", "state", "state"})
                              .bottoms(2, 5)
                              .tops(1, 3)
                              .reads_bottom()
                              .most(4));

}  // namespace sparknet
