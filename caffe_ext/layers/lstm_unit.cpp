#include <cmath>

#include "core/elementwise.h"
#include "core/error.h"

namespace sparknet {

// One step of a long short-term memory, of which Caffe's LSTM is made (see lstm.cpp): the state c before the step
// (1 × N × H), the sums that go into the gates i, f, o, g (1 × N × 4H), and whether each of the N sequences goes on
// (1 × N; 0 or 1, there is no gradient with respect to it) give the state c and the output h (1 × N × H each).
class LSTMUnitLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& state = bottom[0]->shape();
    if (state.size() != 3 || state[0] != 1) {
      throw Error(ErrorKind::kShape, join("the state must be 1 × N × H, not ", to_string(state)), 0);
    }
    streams_ = state[1];
    hidden_ = state[2];
    check(bottom, 1, {1, streams_, kGates * hidden_});
    check(bottom, 2, {1, streams_});
    for (Blob* blob : top) blob->reshape(state);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float *before = bottom[0]->data.read(), *sums = bottom[1]->data.read(), *cont = bottom[2]->data.read();
    float *c = top[0]->data.overwrite(), *h = top[1]->data.overwrite();
    for_units([&](int64_t n, int64_t at, int64_t gate) {
      const Gates gates = gates_at(sums, gate);
      c[at] = cont[n] * gates.f * before[at] + gates.i * gates.g;
      h[at] = gates.o * fast_tanh(c[at]);
    });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (propagate_down[2]) {
      throw Error(ErrorKind::kState, join("there is no gradient with respect to `", bottom[2]->name, "`"), 2);
    }
    const float *before = bottom[0]->data.read(), *sums = bottom[1]->data.read(), *cont = bottom[2]->data.read();
    const float *c = top[0]->data.read(), *dc = top[0]->diff.read(), *dh = top[1]->diff.read();
    float* to_before = propagate_down[0] ? bottom[0]->diff.overwrite() : nullptr;
    float* to_sums = propagate_down[1] ? bottom[1]->diff.overwrite() : nullptr;
    for_units([&](int64_t n, int64_t at, int64_t gate) {
      const auto [i, f, o, g] = gates_at(sums, gate);
      const float squashed = fast_tanh(c[at]);
      const float d = dc[at] + dh[at] * o * (1.0f - squashed * squashed);
      if (to_before != nullptr) to_before[at] = d * cont[n] * f;
      if (to_sums == nullptr) return;
      float* to = to_sums + gate;
      to[0] = d * g * i * (1.0f - i);
      to[hidden_] = d * cont[n] * before[at] * f * (1.0f - f);
      to[2 * hidden_] = dh[at] * squashed * o * (1.0f - o);
      to[3 * hidden_] = d * i * (1.0f - g * g);
    });
  }

  bool allows_gradient(int index) const override { return index != 2; }

 private:
  static constexpr int64_t kGates = 4;

  struct Gates {
    float i, f, o, g;
  };

  Gates gates_at(const float* sums, int64_t gate) const {
    const float* at = sums + gate;
    return {sigmoid(at[0]), sigmoid(at[hidden_]), sigmoid(at[2 * hidden_]), fast_tanh(at[3 * hidden_])};
  }

  static void check(const Blobs& bottom, int index, const Shape& wanted) {
    const Shape& got = bottom[index]->shape();
    if (got == wanted) return;
    throw Error(ErrorKind::kShape,
                join("`", bottom[index]->name, "` must be ", to_string(wanted), ", not ", to_string(got)), index);
  }

  // Calls body(sequence, place in the state, place of its first gate) for each unit.
  template <typename Body>
  void for_units(const Body& body) const {
    constexpr int64_t kGrain = kElementGrain / 64;  // a unit costs five exponentials
    parallel_for(streams_ * hidden_, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; ++at) {
        const int64_t n = at / hidden_;
        body(n, at, n * kGates * hidden_ + at % hidden_);
      }
    });
  }

  int64_t streams_ = 0, hidden_ = 0;
};

REGISTER_LAYER(LSTMUnitLayer, LayerSpec("LSTMUnit", "one step of long short-term memory, the sums of its gates given")
                                  .named({"state", "gates", "cont"})
                                  .bottoms(3, 3)
                                  .tops(2, 2)
                                  .reads_bottom()
                                  .reads_top());

}  // namespace sparknet
