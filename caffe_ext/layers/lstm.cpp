#include <algorithm>

#include "core/parallel.h"
#include "core/recurrent.h"
#include "core/vector_math.h"
#include "core/wide.h"

namespace sparknet {

namespace {

// One step of one stream of `units`: from what its gates are given to what they let through, and to c and h. `on`:
// cont.
SPARKNET_WIDE void cell_step(int64_t units, float on, float* gates, const float* c_before, float* c, float* h) {
  float *i = gates, *f = i + units, *o = f + units, *g = o + units;
#pragma omp simd
  for (int64_t u = 0; u < units; ++u) {
    i[u] = sigmoid(i[u]);
    f[u] = sigmoid(f[u]);
    o[u] = sigmoid(o[u]);
    g[u] = fast_tanh(g[u]);
    c[u] = on * f[u] * c_before[u] + i[u] * g[u];
    h[u] = o[u] * fast_tanh(c[u]);
  }
}

// `dc`: comes with the gradient of c, leaves with that of c_before; `da`: of what the gates were given.
SPARKNET_WIDE void cell_step_back(int64_t units, float on, const float* gates, const float* c_before, const float* c,
                                  const float* dh, float* dc, float* da) {
  const float *i = gates, *f = i + units, *o = f + units, *g = o + units;
#pragma omp simd
  for (int64_t u = 0; u < units; ++u) {
    const float squashed = fast_tanh(c[u]);
    const float d = dc[u] + dh[u] * o[u] * (1.0f - squashed * squashed);
    da[u] = d * g[u] * i[u] * (1.0f - i[u]);
    da[units + u] = d * on * c_before[u] * f[u] * (1.0f - f[u]);
    da[2 * units + u] = dh[u] * squashed * o[u] * (1.0f - o[u]);
    da[3 * units + u] = d * i[u] * (1.0f - g[u] * g[u]);
    dc[u] = d * on * f[u];
  }
}

}  // namespace

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
  void step(int64_t t, const float* cont, Units units, float* gates) override {
    for (int64_t n = 0; n < streams(); ++n) {
      const int64_t at = n * hidden() + units.begin;
      cell_step(units.count, cont[n], gates + n * kGates * units.count, state(1, t) + at, state(1, t + 1) + at,
                state(0, t + 1) + at);
    }
  }

  void step_back(int64_t t, const float* cont, Units units, const float* gates, const float* dh,
                 std::vector<std::vector<float>>& carried, float* da) override {
    for (int64_t n = 0; n < streams(); ++n) {
      const int64_t at = n * hidden() + units.begin, first = n * kGates * units.count;
      cell_step_back(units.count, cont[n], gates + first, state(1, t) + at, state(1, t + 1) + at, dh + at,
                     carried[0].data() + at, da + first);
    }
  }

  void output(Blob& top) override {
    const float* from = state(0, 1);
    float* to = top.data.overwrite();
    parallel_for(top.count(), kElementGrain,
                 [=](int64_t begin, int64_t end) { std::copy(from + begin, from + end, to + begin); });
  }
  const float* output_back(const Blob& top) override { return top.diff.read(); }

 private:
  static constexpr int kGates = 4;
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
