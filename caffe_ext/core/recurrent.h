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
// Each thread computes a part of the hidden units, all their gates, through all steps, so that its rows of W_h stay in
// the second-level cache of its core. From step to step threads exchange h; backward, sums over their gates.
#pragma once

#include <vector>

#include "core/layer.h"
#include "core/product.h"

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
  // Hidden units [begin, begin + count).
  struct Units {
    int64_t begin, count;
  };

  // `gates`: G / H. `states`: arrays of N × H that are carried on, h first.
  RecurrentLayer(const Message& param, Phase phase, int gates, int states)
      : Layer(param, phase), gates_(gates), states_(states) {}

  // From a_t, in `gates` (N × G / H × units), and state(k, t) to state(k, t + 1), for some of the units; what is left
  // in `gates` comes to step_back. Threads call both side by side.
  virtual void step(int64_t t, const float* cont, Units units, float* gates) = 0;
  // Writes the gradient of a_t to `da`, which is like `gates`. `dh` (N × H) is that of h_t; `carried` (N × H for each
  // state but h) comes with that of state(k, t + 1) and leaves with that of state(k, t).
  virtual void step_back(int64_t t, const float* cont, Units units, const float* gates, const float* dh,
                         std::vector<std::vector<float>>& carried, float* da) = 0;
  // From h of all steps to the first top; and from that one's diff, adding to the diffs of the type's own parameters,
  // to its gradient of h (T × N × H).
  virtual void output(Blob& top) = 0;
  virtual const float* output_back(const Blob& top) = 0;
  // Declares parameters of the type's own.
  virtual void add_own_params(const Message& fields) { (void)fields; }

  int64_t steps() const { return steps_; }
  int64_t streams() const { return streams_; }
  int64_t hidden() const { return hidden_; }
  // N × H before step t, t = steps() being the state after the last step.
  float* state(int k, int64_t t) { return states_[k].data() + t * streams_ * hidden_; }
  // The index of the first parameter of the type's own.
  int own_params() const { return static_ ? 4 : 3; }

 private:
  // What one thread computes. Weights and gradients of a part have its units' rows only, gate by gate.
  struct Part {
    Units units;
    int64_t width;                                       // of its gates: G / H × units
    std::optional<Product> inputs, recurrent;            // W_x x of some steps, W_h h of one
    std::optional<Product> recurrent_back, inputs_back;  // their gradients
    std::optional<Product> weights_x, weights_h;         // gradients of the weights, over all steps
    uint64_t version_x = 0, version_h = 0;               // of the parameters that `inputs` and `recurrent` have packed
    std::vector<float> gates, da;                        // T × N × width
    std::vector<float> to_before[2];                     // N × H: da_t W_h of every other step
    std::vector<float> bias, bias_sums;                  // and its gradient
    std::vector<float> rows;                             // of some parameter
  };

  int weights_h() const { return static_ ? 3 : 2; }
  void plan();
  void plan_back();
  template <typename Body>
  void for_parts(const Body& body);
  template <typename Body>
  void for_gates(const Units& units, const Body& body) const;
  void take_rows(Part& part, const float* parameter, int64_t columns);
  int64_t steps_at_once(int64_t width) const;
  void pack(Part& part);
  void begin_steps(Part& part, int64_t t, const float* x, const std::vector<float>& from_static);
  void carry(int64_t t, const float* cont, const Units& units);

  const int gates_;
  bool exposed_ = false, static_ = false;
  int64_t steps_ = 0, streams_ = 0, hidden_ = 0, inputs_ = 0, static_inputs_ = 0;
  std::vector<Part> parts_;
  Shape planned_;  // what parts_ are for
  int64_t at_once_ = 1;
  std::vector<std::vector<float>> states_;
  std::vector<std::vector<float>> last_;  // each state after the last forward pass
  std::vector<float> conted_;             // cont_t h_(t-1)
  bool forwarded_ = false;                // with the present shapes
};

}  // namespace sparknet
