// The solvers: what happens to the parameters once their gradients are there, exactly as in BVLC Caffe 1.0. Ours beside
// Caffe's: type "AdamW", policy "cosine", and a warm-up for every policy.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/message.h"
#include "core/net.h"

namespace sparknet {

class Solver {
 public:
  // `param` is a SolverParameter, `net` the train net, which must outlive the solver. Throws Error(kField) for an
  // unknown type, policy or regularization_type, and for a policy that lacks a field.
  Solver(const Message& param, Net& net);
  Solver(const Solver&) = delete;
  Solver& operator=(const Solver&) = delete;

  // Updates the parameters by the gradients that are there, the sum over iter_size passes, and counts an iteration.
  void apply_update();

  // The learning rate of the current iteration, before lr_mult. With policy "multistep" an evaluation advances
  // current_step by at most one, as in Caffe. While iter < warmup_iter the rate goes over from warmup_start_lr to the
  // policy's in a straight line (gradual warm-up: Goyal et al., "Accurate, Large Minibatch SGD", 2017).
  double rate();

  int64_t iter() const { return iter_; }
  // Goes to another iteration; current_step becomes what it would be had the iterations before been run.
  void set_iter(int64_t iter);
  int64_t current_step() const { return current_step_; }
  void restore(int64_t iter, int64_t current_step);

  // The state beside the parameters: `history_blobs()` arrays in snapshot order (all first ones, then all second ones),
  // one after the other in `history()`.
  int64_t history_blobs() const;
  int64_t history_count() const { return slots_ * net_.flat_count(); }
  const std::shared_ptr<float>& history() const { return history_; }

  static const std::vector<std::string>& types();

 private:
  // A piece of one parameter, small enough that pieces keep all threads busy.
  struct Piece {
    int param;
    int64_t begin;
    int64_t end;
  };

  void check_type() const;
  void check_policy() const;
  double policy_rate();
  double gradient_scale() const;

  const Message param_;
  Net& net_;
  std::string type_;
  int slots_;  // history arrays for each parameter
  std::vector<Piece> pieces_;
  std::shared_ptr<float> history_;
  int64_t iter_ = 0;
  int64_t current_step_ = 0;
};

}  // namespace sparknet
