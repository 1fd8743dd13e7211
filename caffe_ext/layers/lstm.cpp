#include "core/recurrent.h"
#include "core/vector_math.h"
#include "core/wide.h"

namespace sparknet {

namespace {

// From what the gates i, f, o, g are given, `stride` apart, to what they let through, and to c and h. `on`: cont.
SPARKNET_WIDE void cell_step(int64_t count, const float* on, float* gates, int64_t stride, const float* c_before,
                             float* c, float* h) {
  float *i = gates, *f = i + stride, *o = f + stride, *g = o + stride;
#pragma omp simd
  for (int64_t u = 0; u < count; ++u) {
    i[u] = sigmoid(i[u]);
    f[u] = sigmoid(f[u]);
    o[u] = sigmoid(o[u]);
    g[u] = fast_tanh(g[u]);
    c[u] = on[u] * f[u] * c_before[u] + i[u] * g[u];
    h[u] = o[u] * fast_tanh(c[u]);
  }
}

// `dc`: comes with the gradient of c, leaves with that of c_before; `da`: of what the gates were given, `da_stride`
// apart.
SPARKNET_WIDE void cell_step_back(int64_t count, const float* on, const float* gates, int64_t stride,
                                  const float* c_before, const float* c, const float* dh, float* dc, float* da,
                                  int64_t da_stride) {
  const float *i = gates, *f = i + stride, *o = f + stride, *g = o + stride;
  float *di = da, *df = di + da_stride, *d_o = df + da_stride, *dg = d_o + da_stride;
#pragma omp simd
  for (int64_t u = 0; u < count; ++u) {
    const float squashed = fast_tanh(c[u]);
    const float d = dc[u] + dh[u] * o[u] * (1.0f - squashed * squashed);
    di[u] = d * g[u] * i[u] * (1.0f - i[u]);
    df[u] = d * on[u] * c_before[u] * f[u] * (1.0f - f[u]);
    d_o[u] = dh[u] * squashed * o[u] * (1.0f - o[u]);
    dg[u] = d * i[u] * (1.0f - g[u] * g[u]);
    dc[u] = d * on[u] * f[u];
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
  void step(const Cell& cell) override {
    cell_step(cell.count, cell.cont, cell.gates, cell.stride, state(1, cell.t) + cell.at,
              state(1, cell.t + 1) + cell.at, state(0, cell.t + 1) + cell.at);
  }

  void step_back(const Cell& cell, const float* dh, float* da, int64_t stride) override {
    cell_step_back(cell.count, cell.cont, cell.gates, cell.stride, state(1, cell.t) + cell.at,
                   state(1, cell.t + 1) + cell.at, dh, carried(1) + cell.at, da, stride);
  }

  void output(Blob& top) override { copy_outputs(top.data.overwrite()); }
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
