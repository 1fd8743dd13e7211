// What LSTM and RNN have in common: a hidden state that is carried from step to step, and from one forward pass to the
// next.
//
// Bottoms: x (T × N × ...), T steps of N independent streams; cont (T × N), 0 where a stream begins anew and 1 where it
// goes on; optionally a static input (N × ...) that every step sees. At step t
//
//   a_t = W_x x_t + b + W_s static + W_h (cont_t h_(t-1))
//
// for G values ("gates") of each stream, from which the type computes h_t (N × H, H = num_output). Parameters, in
// Caffe's order: W_x (G × D), b (G), W_s (G × S) where there is a static input, W_h (G × H), then the type's own.
//
// The state before the first step is that after the last step of the previous forward pass; at first, and after N has
// changed, zeros. With expose_hidden it is read from further bottoms (1 × N × H) and the last one is written to further
// tops; as in Caffe no gradient flows through either. Gradients reach back to the first step of a pass, not further.
//
// Caffe unrolls T copies of a net; here T may change from pass to pass.
//
// Each thread computes a part of the hidden units, all their gates, through all steps, so that its weights stay in the
// second-level cache of its core. From step to step threads exchange h; backward, sums over their gates. A step has one
// product each way: [h_(t-1), x_t] times [W_h, W_x], and da_t times the transpose. All arrays are panels of 16 columns
// (core/panels.h), so that a step of 16 units is one loop over memory from first to last.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "core/layer.h"
#include "core/panels.h"

namespace sparknet {

class RecurrentLayer : public Layer {
 public:
  void setup(const Blobs& bottom, const Blobs& top) override;
  void reshape(const Blobs& bottom, const Blobs& top) override;
  void forward(const Blobs& bottom, const Blobs& top) override;
  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override;
  // It goes on with the state in which the pass before ended.
  bool repeats() const override { return exposed_; }
  int64_t multiply_adds(const Blobs& bottom, const Blobs& top) const override;
  // No gradient with respect to cont.
  bool allows_gradient(int index) const override { return index != 1; }

 protected:
  // One step of 16 hidden units. Its arrays are N × 16, those of the gates one after the other, `stride` apart.
  struct Cell {
    int64_t t;
    int64_t at;         // of the units, in the states
    int64_t count;      // N × 16
    const float* cont;  // of each value's stream
    float* gates;
    int64_t stride;
  };

  // `gates`: G / H. `states`: arrays of N × H that are carried on, h first.
  RecurrentLayer(const Message& param, Phase phase, int gates, int states)
      : Layer(param, phase), gates_(gates), states_(states) {}

  // From a_t, in the gates, and state(k, t) to state(k, t + 1); what is left in the gates comes to step_back. Threads
  // call both side by side.
  virtual void step(const Cell& cell) = 0;
  // Writes the gradient of a_t to `da`, arrays `stride` apart. `dh` is that of h_t; carried(k) comes with that of
  // state(k, t + 1), k > 0, and leaves with that of state(k, t).
  virtual void step_back(const Cell& cell, const float* dh, float* da, int64_t stride) = 0;
  // From h of all steps to the first top; and from that one's diff, adding to the diffs of the type's own parameters,
  // to its gradient of h (T × N × H, row-major).
  virtual void output(Blob& top) = 0;
  virtual const float* output_back(const Blob& top) = 0;
  // Declares parameters of the type's own.
  virtual void add_own_params(const Message& fields) { (void)fields; }

  int64_t steps() const { return steps_; }
  int64_t streams() const { return streams_; }
  int64_t hidden() const { return hidden_; }
  // Panels of N rows before step t, t = steps() being the state after the last step.
  float* state(int k, int64_t t) { return states_[k].get() + t * state_size(); }
  float* carried(int k) { return carried_[k].get(); }
  // h of all steps, T × N × H, row-major.
  void copy_outputs(float* to);
  // The index of the first parameter of the type's own.
  int own_params() const { return static_ ? 4 : 3; }

 private:
  using Memory = std::shared_ptr<float>;

  // What one thread computes: panels [first, first + count) of the hidden units. Its rows of G are panels of each gate.
  struct Part {
    int64_t index, first, count;
    Memory weights, weights_back;           // [W_h, W_x] as `b` of the product of a step, and of that backward
    uint64_t version_x = 0, version_h = 0;  // of the parameters that they were made of
    Memory bias, from_static;               // of G; N × G: W_s static
    Memory gates;                           // T × (N × G)
    Memory dh, da;                          // N × 16; of at_once_ steps
    Memory to_input[2];                     // of every other step: N × (H + D), the gradient of [h_(t-1), x_t]
    Memory d_weights, d_bias, d_static;     // like weights_back, bias, from_static
  };

  int weights_h() const { return static_ ? 3 : 2; }
  int64_t state_size() const { return streams_ * panels_h_ * kLanes; }
  int64_t panels_of_gates(const Part& part) const { return gates_ * part.count; }
  // Columns of panel `index` of a matrix.
  static int64_t lanes(int64_t columns, int64_t index) { return std::min<int64_t>(kLanes, columns - index * kLanes); }
  void plan();
  void plan_back();
  template <typename Body>
  void for_parts(const Body& body);
  template <typename Body>
  void for_gates(const Part& part, const Body& body) const;
  template <typename Body>
  void for_chunks(const Part& part, const Body& body) const;
  void pack(Part& part);
  Panels<float> input(int64_t t);
  Cell cell(const Part& part, int64_t panel, int64_t t);
  void begin_step(const Part& part, int64_t t, const float* x);
  void read_state(int k, const float* rows);
  void write_state(int k, int64_t t, float* rows);
  void gradient_of_h(const Part& part, int64_t panel, int64_t t, const float* from_top);
  void gradient_of_x(const Part& part, int64_t t, float* dx);
  void add_sums(const Part& part, const float* da);

  const int gates_;
  bool exposed_ = false, static_ = false;
  int64_t steps_ = 0, streams_ = 0, hidden_ = 0, inputs_ = 0, static_inputs_ = 0;
  int64_t panels_h_ = 0, panels_x_ = 0;
  std::vector<Part> parts_;
  Shape planned_;           // what parts_ are for
  int64_t at_once_ = 1;     // steps whose gradients of the weights are computed at once
  Memory inputs_of_steps_;  // [cont_t h_(t-1), x_t], N rows for each of at_once_ steps, one such group after the other
  Memory conts_;            // T × N × 16
  std::vector<Memory> states_, carried_;
  std::vector<std::vector<float>> last_;  // each state after the last forward pass
  bool forwarded_ = false;                // with the present shapes
};

}  // namespace sparknet
