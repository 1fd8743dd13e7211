#include "core/solver.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>

#include "core/error.h"
#include "core/parallel.h"
#include "core/wide.h"

namespace sparknet {

namespace {

// All that the update of one parameter depends on beside its arrays.
struct Update {
  float scale;     // of the raw gradient: clipping, and 1 / iter_size
  float l2, l1;    // weight decay
  float rate;      // learning rate × lr_mult; for Adam and AdamW with the bias correction
  float momentum;  // also AdaDelta's decay, beta1 of Adam and AdamW
  float decay2;    // RMSProp's rms_decay, beta2 of Adam and AdamW
  float delta;     // for AdamW with the bias correction
  float shrink;    // AdamW: learning rate × lr_mult × weight decay
};

// The gradient with clipping, iter_size and weight decay in, in Caffe's order.
inline float regularized(const Update& u, float gradient, float weight) {
  const float sign = weight > 0.0f ? 1.0f : (weight < 0.0f ? -1.0f : 0.0f);
  return u.scale * gradient + u.l2 * weight + u.l1 * sign;
}

// w: the parameter, g: its gradient, h and k: its first and second history array.
using Rule = void (*)(const Update& u, int64_t count, const float* g, float* w, float* h, float* k);

SPARKNET_WIDE void sgd(const Update& u, int64_t count, const float* g, float* w, float* h, float*) {
  for (int64_t i = 0; i < count; ++i) {
    h[i] = u.momentum * h[i] + u.rate * regularized(u, g[i], w[i]);
    w[i] -= h[i];
  }
}

SPARKNET_WIDE void nesterov(const Update& u, int64_t count, const float* g, float* w, float* h, float*) {
  for (int64_t i = 0; i < count; ++i) {
    const float before = h[i];
    h[i] = u.momentum * before + u.rate * regularized(u, g[i], w[i]);
    w[i] -= (1.0f + u.momentum) * h[i] - u.momentum * before;
  }
}

SPARKNET_WIDE void adagrad(const Update& u, int64_t count, const float* g, float* w, float* h, float*) {
  for (int64_t i = 0; i < count; ++i) {
    const float d = regularized(u, g[i], w[i]);
    h[i] += d * d;
    w[i] -= u.rate * d / (std::sqrt(h[i]) + u.delta);
  }
}

SPARKNET_WIDE void rmsprop(const Update& u, int64_t count, const float* g, float* w, float* h, float*) {
  for (int64_t i = 0; i < count; ++i) {
    const float d = regularized(u, g[i], w[i]);
    h[i] = u.decay2 * h[i] + (1.0f - u.decay2) * d * d;
    w[i] -= u.rate * d / (std::sqrt(h[i]) + u.delta);
  }
}

SPARKNET_WIDE void adadelta(const Update& u, int64_t count, const float* g, float* w, float* h, float* k) {
  for (int64_t i = 0; i < count; ++i) {
    const float d = regularized(u, g[i], w[i]);
    h[i] = u.momentum * h[i] + (1.0f - u.momentum) * d * d;
    const float step = d * std::sqrt((k[i] + u.delta) / (h[i] + u.delta));
    k[i] = u.momentum * k[i] + (1.0f - u.momentum) * step * step;
    w[i] -= u.rate * step;
  }
}

SPARKNET_WIDE void adam(const Update& u, int64_t count, const float* g, float* w, float* h, float* k) {
  for (int64_t i = 0; i < count; ++i) {
    const float d = regularized(u, g[i], w[i]);
    h[i] = u.momentum * h[i] + (1.0f - u.momentum) * d;
    k[i] = u.decay2 * k[i] + (1.0f - u.decay2) * d * d;
    w[i] -= u.rate * h[i] / (std::sqrt(k[i]) + u.delta);
  }
}

// Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2: the decay is no part of the
// gradient, so neither average sees it. The correction of k stands in `rate` and `delta`.
SPARKNET_WIDE void adamw(const Update& u, int64_t count, const float* g, float* w, float* h, float* k) {
  for (int64_t i = 0; i < count; ++i) {
    const float d = u.scale * g[i];
    h[i] = u.momentum * h[i] + (1.0f - u.momentum) * d;
    k[i] = u.decay2 * k[i] + (1.0f - u.decay2) * d * d;
    w[i] -= u.shrink * w[i] + u.rate * h[i] / (std::sqrt(k[i]) + u.delta);
  }
}

SPARKNET_WIDE double sum_of_squares(const float* values, int64_t count) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]) * values[i];
  return sum;
}

struct SolverType {
  Rule rule;
  int slots;
  bool takes_momentum;
};

const std::map<std::string, SolverType>& solver_types() {
  static const std::map<std::string, SolverType> table = {
      {"SGD", {sgd, 1, true}},          {"Nesterov", {nesterov, 1, true}}, {"AdaGrad", {adagrad, 1, false}},
      {"RMSProp", {rmsprop, 1, false}}, {"AdaDelta", {adadelta, 2, true}}, {"Adam", {adam, 2, true}},
      {"AdamW", {adamw, 2, true}},
  };
  return table;
}

std::string listed(const std::vector<std::string>& names) {
  return std::accumulate(
      names.begin(), names.end(), std::string(),
      [](const std::string& text, const std::string& name) { return text.empty() ? name : text + ", " + name; });
}

// Which fields each policy cannot do without; the others count as 0 when they are absent, as in Caffe.
const std::map<std::string, std::vector<std::string>>& policies() {
  static const std::map<std::string, std::vector<std::string>> table = {
      {"fixed", {}},     {"step", {"stepsize"}}, {"exp", {}},     {"inv", {}},
      {"multistep", {}}, {"poly", {"max_iter"}}, {"sigmoid", {}}, {"cosine", {"max_iter"}},
  };
  return table;
}

}  // namespace

const std::vector<std::string>& Solver::types() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> keys;
    for (const auto& entry : solver_types()) keys.push_back(entry.first);
    return keys;
  }();
  return names;
}

Solver::Solver(const Message& param, Net& net) : param_(param), net_(net), type_(param.text("type")) {
  check_type();
  check_policy();
  slots_ = solver_types().at(type_).slots;

  constexpr int64_t kPiece = 16384;
  for (size_t index = 0; index < net_.learnable().size(); ++index) {
    const int64_t count = net_.learnable()[index].blob->count();
    for (int64_t begin = 0; begin < count; begin += kPiece) {
      pieces_.push_back({static_cast<int>(index), begin, std::min(begin + kPiece, count)});
    }
  }
  // Shared with the views that Python holds, which may outlive the solver.
  auto zeros = std::make_shared<std::vector<float>>(history_count());
  history_ = std::shared_ptr<float>(zeros, zeros->data());
}

void Solver::check_type() const {
  const auto type = solver_types().find(type_);
  if (type == solver_types().end()) {
    fail(ErrorKind::kField, "unknown solver type \"", type_, "\"; known: ", listed(types()));
  }
  const double momentum = param_.real("momentum");
  if (!type->second.takes_momentum && momentum != 0.0) {
    fail(ErrorKind::kField, type_, " takes no momentum: leave it out or set it to 0");
  }
  // The bias correction divides by 1 - beta^t.
  if (type_ == "Adam" || type_ == "AdamW") {
    for (const char* field : {"momentum", "momentum2"}) {
      const double beta = param_.real(field);
      if (!(beta >= 0.0 && beta < 1.0)) fail(ErrorKind::kField, type_, " wants a ", field, " from 0 to below 1");
    }
  }
  const std::string& regularization = param_.text("regularization_type");
  if (regularization != "L2" && regularization != "L1") {
    fail(ErrorKind::kField, "unknown regularization_type \"", regularization, "\"; known: L1, L2");
  }
  if (type_ == "AdamW" && regularization == "L1") {
    fail(ErrorKind::kField, "AdamW decays the weights themselves: leave regularization_type L1 out");
  }
  if (param_.integer("iter_size") < 1) fail(ErrorKind::kField, "iter_size must be at least 1");
}

void Solver::check_policy() const {
  if (!param_.has("lr_policy")) fail(ErrorKind::kField, "lr_policy is missing; for a constant rate: \"fixed\"");
  const std::string& policy = param_.text("lr_policy");
  const auto known = policies().find(policy);
  if (known == policies().end()) {
    std::vector<std::string> names;
    for (const auto& entry : policies()) names.push_back(entry.first);
    fail(ErrorKind::kField, "unknown lr_policy \"", policy, "\"; known: ", listed(names));
  }
  for (const std::string& field : known->second) {
    if (!param_.has(field)) fail(ErrorKind::kField, "lr_policy \"", policy, "\" needs ", field);
    if (param_.integer(field) < 1) fail(ErrorKind::kField, field, " must be at least 1");
  }
  if (param_.integer("warmup_iter") < 0) fail(ErrorKind::kField, "warmup_iter must be at least 0");
}

double Solver::rate() {
  const double rate = policy_rate();
  const int64_t warmup = param_.integer("warmup_iter");
  if (iter_ >= warmup) return rate;
  const double done = static_cast<double>(iter_) / static_cast<double>(warmup);
  return (1.0 - done) * param_.real("warmup_start_lr") + done * rate;
}

double Solver::policy_rate() {
  const std::string& policy = param_.text("lr_policy");
  const double base = param_.real("base_lr");
  const double gamma = param_.real("gamma");
  const auto iter = static_cast<double>(iter_);
  if (policy == "fixed") return base;
  if (policy == "step") {
    current_step_ = iter_ / param_.integer("stepsize");
    return base * std::pow(gamma, static_cast<double>(current_step_));
  }
  if (policy == "exp") return base * std::pow(gamma, iter);
  if (policy == "inv") return base * std::pow(1.0 + gamma * iter, -param_.real("power"));
  if (policy == "multistep") {
    const auto& steps = param_.integers("stepvalue");
    if (current_step_ < static_cast<int64_t>(steps.size()) && iter_ >= steps[current_step_]) ++current_step_;
    return base * std::pow(gamma, static_cast<double>(current_step_));
  }
  if (policy == "poly") {
    const double left = 1.0 - iter / static_cast<double>(param_.integer("max_iter"));
    // Caffe's rate is NaN past max_iter; here it stays at 0.
    return left <= 0.0 ? 0.0 : base * std::pow(left, param_.real("power"));
  }
  if (policy == "cosine") {
    // Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts; past max_iter the floor stays.
    const double done = std::min(1.0, iter / static_cast<double>(param_.integer("max_iter")));
    const double floor = param_.real("min_lr");
    constexpr double kPi = 3.14159265358979323846;
    return floor + 0.5 * (base - floor) * (1.0 + std::cos(kPi * done));
  }
  return base / (1.0 + std::exp(-gamma * (iter - static_cast<double>(param_.integer("stepsize")))));  // sigmoid
}

void Solver::set_iter(int64_t iter) {
  if (iter < 0) fail(ErrorKind::kState, "iteration ", iter, " does not exist");
  iter_ = iter;
  current_step_ = 0;
  if (param_.text("lr_policy") == "step" && iter > 0) current_step_ = (iter - 1) / param_.integer("stepsize");
  if (param_.text("lr_policy") != "multistep") return;
  // One step at most in each iteration, so equal step values are taken in iterations that follow each other.
  int64_t taken_at = -1;
  for (const int64_t step : param_.integers("stepvalue")) {
    taken_at = std::max(step, taken_at + 1);
    if (taken_at >= iter) break;
    ++current_step_;
  }
}

void Solver::restore(int64_t iter, int64_t current_step) {
  if (iter < 0 || current_step < 0)
    fail(ErrorKind::kState, "iteration ", iter, ", step ", current_step, " does not exist");
  iter_ = iter;
  current_step_ = current_step;
}

int64_t Solver::history_blobs() const { return slots_ * static_cast<int64_t>(net_.learnable().size()); }

double Solver::gradient_scale() const {
  double scale = 1.0;
  const double limit = param_.real("clip_gradients");
  if (limit >= 0.0) {
    // One sum for each piece, then in order: the same for every number of threads.
    std::vector<double> sums(pieces_.size());
    parallel_for(static_cast<int64_t>(pieces_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) {
        const Piece& piece = pieces_[index];
        const float* g = net_.flat_diff().get() + net_.learnable()[piece.param].offset;
        sums[index] = sum_of_squares(g + piece.begin, piece.end - piece.begin);
      }
    });
    const double norm = std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
    // Caffe clips the sum over iter_size, before it is averaged and before weight decay.
    if (norm > limit) scale = limit / norm;
  }
  return scale / static_cast<double>(param_.integer("iter_size"));
}

void Solver::apply_update() {
  const auto& learnable = net_.learnable();
  for (const Learnable& parameter : learnable) {
    parameter.blob->diff.read();   // gradients that nobody touched become zeros in memory
    parameter.blob->data.write();  // and the layers learn that their copies are stale
  }
  const double rate_now = rate();
  const double scale = gradient_scale();
  const double decay = param_.real("weight_decay");
  const bool l1 = param_.text("regularization_type") == "L1";
  const double momentum = param_.real("momentum");
  const double decay2 = param_.real(type_ == "RMSProp" ? "rms_decay" : "momentum2");
  double correction = 1.0;
  double delta = param_.real("delta");
  if (type_ == "Adam" || type_ == "AdamW") {
    const auto t = static_cast<double>(iter_ + 1);
    const double second = std::sqrt(1.0 - std::pow(decay2, t));
    correction = second / (1.0 - std::pow(momentum, t));
    // Caffe's Adam adds delta to the uncorrected root; AdamW follows the paper.
    if (type_ == "AdamW") delta *= second;
  }
  std::vector<Update> updates;
  updates.reserve(learnable.size());
  for (const Learnable& parameter : learnable) {
    const double local = decay * parameter.decay_mult;
    const double local_rate = rate_now * parameter.lr_mult;
    updates.push_back({static_cast<float>(scale), static_cast<float>(l1 ? 0.0 : local),
                       static_cast<float>(l1 ? local : 0.0), static_cast<float>(local_rate * correction),
                       static_cast<float>(momentum), static_cast<float>(decay2), static_cast<float>(delta),
                       static_cast<float>(local_rate * local)});
  }
  const Rule rule = solver_types().at(type_).rule;
  const int64_t second = slots_ == 2 ? net_.flat_count() : 0;
  parallel_for(static_cast<int64_t>(pieces_.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const Piece& piece = pieces_[index];
      const int64_t at = learnable[piece.param].offset + piece.begin;
      rule(updates[piece.param], piece.end - piece.begin, net_.flat_diff().get() + at, net_.flat_data().get() + at,
           history_.get() + at, history_.get() + at + second);
    }
  });
  net_.settle();
  ++iter_;
}

}  // namespace sparknet
