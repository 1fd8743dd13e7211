#include "core/recurrent.h"

#include <omp.h>

#include <algorithm>

#include "core/error.h"
#include "core/matrix.h"
#include "core/parallel.h"

namespace sparknet {

void RecurrentLayer::setup(const Blobs& bottom, const Blobs& top) {
  const Message& fields = param().message("recurrent_param");
  hidden_ = fields.integer("num_output");
  if (hidden_ < 1) fail(ErrorKind::kField, "num_output must be at least 1");
  exposed_ = fields.flag("expose_hidden");
  const size_t hidden_blobs = exposed_ ? states_.size() : 0;
  static_ = bottom.size() > 2 + hidden_blobs;
  if (bottom.size() < 2 + hidden_blobs || bottom.size() > 3 + hidden_blobs) {
    fail(ErrorKind::kBottoms, exposed_ ? "with" : "without", " expose_hidden it takes ", 2 + hidden_blobs,
         " bottoms, or one more for a static input; got ", bottom.size());
  }
  if (top.size() != 1 + hidden_blobs) {
    fail(ErrorKind::kTops, exposed_ ? "with" : "without", " expose_hidden it makes ", 1 + hidden_blobs,
         hidden_blobs == 0 ? " top" : " tops", "; got ", top.size());
  }
  const Shape& x = bottom[0]->shape();
  if (x.size() < 3) fail(ErrorKind::kShape, "the bottom must be steps × streams × values, not ", to_string(x));
  inputs_ = count(x, 2, static_cast<int>(x.size()));
  const Message& weight_filler = fields.message("weight_filler");
  const int64_t width = gates_ * hidden_;
  add_param({width, inputs_}, weight_filler);
  add_param({width}, fields.message("bias_filler"));
  if (static_) {
    const Shape& shape = bottom[2]->shape();
    if (shape.size() < 2) {
      throw Error(ErrorKind::kShape, "the static input must be streams × values, not " + to_string(shape), 2);
    }
    static_inputs_ = count(shape, 1, static_cast<int>(shape.size()));
    add_param({width, static_inputs_}, weight_filler);
  }
  add_param({width, hidden_}, weight_filler);
  add_own_params(fields);
}

void RecurrentLayer::reshape(const Blobs& bottom, const Blobs& top) {
  const Shape& x = bottom[0]->shape();
  if (x.size() < 3 || count(x, 2, static_cast<int>(x.size())) != inputs_) {
    fail(ErrorKind::kShape, "the weights are for steps × streams × ", inputs_, " values, the bottom is ", to_string(x));
  }
  const auto expect = [&](int index, const Shape& shape, const char* what) {
    if (bottom[index]->shape() == shape) return;
    throw Error(ErrorKind::kShape,
                join(what, " `", bottom[index]->name, "` must be ", to_string(shape), " for `", bottom[0]->name, "` (",
                     to_string(x), "), not ", to_string(bottom[index]->shape())),
                index);
  };
  expect(1, {x[0], x[1]}, "the continuation indicators");
  if (static_) {
    const Shape& shape = bottom[2]->shape();
    if (shape.size() < 2 || shape[0] != x[1] || count(shape, 1, static_cast<int>(shape.size())) != static_inputs_) {
      throw Error(ErrorKind::kShape,
                  join("the static input `", bottom[2]->name, "` must have ", static_inputs_,
                       " values for each of the ", x[1], " streams; it is ", to_string(shape)),
                  2);
    }
  }
  const int hidden_bottom = static_ ? 3 : 2;
  const Shape state = {1, x[1], hidden_};
  for (size_t k = 0; exposed_ && k < states_.size(); ++k) {
    expect(hidden_bottom + static_cast<int>(k), state, "the state");
    top[1 + k]->reshape(state);
  }
  top[0]->reshape({x[0], x[1], hidden_});
  if (x[1] != streams_) last_.clear();
  if (x[0] != steps_ || x[1] != streams_) forwarded_ = false;
  steps_ = x[0];
  streams_ = x[1];
}

template <typename Body>
void RecurrentLayer::for_parts(const Body& body) {
  parallel_for(static_cast<int64_t>(parts_.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(parts_[i]);
  });
}

// Calls body(row of the part, row of the parameter) for each gate, where `units.count` rows begin.
template <typename Body>
void RecurrentLayer::for_gates(const Units& units, const Body& body) const {
  for (int64_t gate = 0; gate < gates_; ++gate) body(gate * units.count, gate * hidden_ + units.begin);
}

// Steps whose W_x x are computed at once: so few that the gates are still in the core's cache when their steps come,
// but enough rows for a product. A divisor of the number of steps.
int64_t RecurrentLayer::steps_at_once(int64_t width) const {
  constexpr int64_t kCached = 1 << 17, kFewest = 16;  // floats, rows
  int64_t most = std::clamp<int64_t>(kCached / (streams_ * width), 1, steps_);
  while (steps_ % most != 0) --most;
  return most * streams_ < kFewest ? steps_ : most;
}

void RecurrentLayer::plan() {
  const int threads = omp_get_max_threads();
  const Shape wanted = {steps_, streams_, threads};
  if (planned_ == wanted) return;
  constexpr int64_t kVector = 16;      // units whose values are a cache line
  constexpr int64_t kLeast = 1 << 17;  // multiply-adds in a step that are worth a thread
  const int64_t vectors = (hidden_ + kVector - 1) / kVector;
  const int64_t each = gates_ * hidden_ * (inputs_ + hidden_);
  const int64_t most = std::max<int64_t>(streams_ * each / kLeast, 1);
  const int64_t count = std::min({static_cast<int64_t>(threads), vectors, most});
  at_once_ = steps_at_once((vectors + count - 1) / count * kVector * gates_);
  parts_.clear();
  for (int64_t i = 0; i < count; ++i) {
    const auto from = [&](int64_t index) { return std::min(vectors * index / count * kVector, hidden_); };
    Part part;
    part.units = {from(i), from(i + 1) - from(i)};
    part.width = gates_ * part.units.count;
    Product::Form inputs{at_once_ * streams_, part.width, inputs_}, recurrent{streams_, part.width, hidden_};
    inputs.packed = recurrent.packed = inputs.biased = recurrent.adds = true;
    part.inputs.emplace(inputs);
    part.recurrent.emplace(recurrent);
    part.gates.resize(steps_ * streams_ * part.width);
    parts_.push_back(std::move(part));
  }
  planned_ = wanted;
}

void RecurrentLayer::plan_back() {
  const int64_t rows = steps_ * streams_;
  for (Part& part : parts_) {
    if (part.recurrent_back) continue;
    Product::Form recurrent{streams_, hidden_, part.width}, inputs{rows, inputs_, part.width};
    recurrent.packed = inputs.packed = true;
    inputs.adds = &part != &parts_.front();
    inputs.threads = omp_get_max_threads();
    part.recurrent_back.emplace(recurrent);
    part.inputs_back.emplace(inputs);
    part.weights_x.emplace(Product::Form{part.width, inputs_, rows, 'T'});
    part.weights_h.emplace(Product::Form{part.width, hidden_, rows, 'T'});
    part.da.resize(rows * part.width);
    for (auto& sums : part.to_before) sums.resize(streams_ * hidden_);
  }
}

void RecurrentLayer::take_rows(Part& part, const float* parameter, int64_t columns) {
  part.rows.resize(part.width * columns);
  for_gates(part.units, [&](int64_t own, int64_t row) {
    std::copy_n(parameter + row * columns, part.units.count * columns, part.rows.begin() + own * columns);
  });
}

void RecurrentLayer::pack(Part& part) {
  const auto take = [&](int index, int64_t columns, uint64_t& version, Product& product) {
    const Tensor& weights = params[index]->data;
    const uint64_t now = weights.version();
    if (now != 0 && version == now) return;
    take_rows(part, weights.read(), columns);
    product.pack('T', part.rows.data());
    version = now;
  };
  take(0, inputs_, part.version_x, *part.inputs);
  take(weights_h(), hidden_, part.version_h, *part.recurrent);
  take_rows(part, params[1]->data.read(), 1);
  part.bias = part.rows;
}

// What does not depend on the state, for the next steps.
void RecurrentLayer::begin_steps(Part& part, int64_t t, const float* x, const std::vector<float>& from_static) {
  const int64_t row = t * streams_;
  float* gates = part.gates.data() + row * part.width;
  part.inputs->run(x + row * inputs_, nullptr, gates, part.bias.data());
  if (!static_) return;
  for (int64_t i = 0; i < at_once_ * streams_; ++i) {
    for_gates(part.units, [&](int64_t own, int64_t column) {
      const float* from = from_static.data() + i % streams_ * gates_ * hidden_ + column;
      float* to = gates + i * part.width + own;
      for (int64_t u = 0; u < part.units.count; ++u) to[u] += from[u];
    });
  }
}

void RecurrentLayer::carry(int64_t t, const float* cont, const Units& units) {
  for (int64_t n = 0; n < streams_; ++n) {
    const float on = cont[t * streams_ + n];
    const int64_t at = n * hidden_ + units.begin;
    const float* h = state(0, t) + at;
    float* to = conted_.data() + t * streams_ * hidden_ + at;
    for (int64_t i = 0; i < units.count; ++i) to[i] = on * h[i];
  }
}

void RecurrentLayer::forward(const Blobs& bottom, const Blobs& top) {
  const int64_t width = gates_ * hidden_, size = streams_ * hidden_, rows = steps_ * streams_;
  if (rows == 0) return;
  for (size_t k = 0; k < states_.size(); ++k) {
    states_[k].resize((steps_ + 1) * size);
    if (exposed_) {
      std::copy_n(bottom[(static_ ? 3 : 2) + k]->data.read(), size, states_[k].begin());
    } else if (k < last_.size()) {
      std::copy(last_[k].begin(), last_[k].end(), states_[k].begin());
    } else {
      std::fill_n(states_[k].begin(), size, 0.0f);
    }
  }
  std::vector<float> from_static;
  if (static_) {
    from_static.resize(streams_ * width);
    multiply('N', 'T', streams_, width, static_inputs_, bottom[2]->data.read(), params[2]->data.read(), 0.0f,
             from_static.data());
  }

  plan();
  conted_.resize(rows * hidden_);
  const float *x = bottom[0]->data.read(), *cont = bottom[1]->data.read();
  for (const auto& blob : params) blob->data.read();  // row-major from here on, for all threads
  for_parts([&](Part& part) {
    pack(part);
    carry(0, cont, part.units);
  });
  for (int64_t t = 0; t < steps_; ++t) {
    for_parts([&](Part& part) {
      if (t % at_once_ == 0) begin_steps(part, t, x, from_static);
      float* gates = part.gates.data() + t * streams_ * part.width;
      part.recurrent->run(conted_.data() + t * size, nullptr, gates);
      step(t, cont + t * streams_, part.units, gates);
      if (t + 1 < steps_) carry(t + 1, cont, part.units);
    });
  }
  forwarded_ = true;

  last_.resize(states_.size());
  for (size_t k = 0; k < states_.size(); ++k) {
    const float* end = state(static_cast<int>(k), steps_);
    last_[k].assign(end, end + size);
    if (exposed_) std::copy_n(end, size, top[1 + k]->data.overwrite());
  }
  output(*top[0]);
}

void RecurrentLayer::backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) {
  const int64_t width = gates_ * hidden_, size = streams_ * hidden_, rows = steps_ * streams_;
  if (propagate_down[1]) {
    throw Error(ErrorKind::kState,
                join("there is no gradient with respect to the continuation indicators `", bottom[1]->name,
                     "`, but a layer below asks for one"),
                1);
  }
  if (rows == 0) return;
  if (!forwarded_) fail(ErrorKind::kState, "backward needs a forward pass before it");

  plan_back();
  const float *weights = params[weights_h()]->data.read(), *cont = bottom[1]->data.read();
  for_parts([&](Part& part) {
    take_rows(part, weights, hidden_);
    part.recurrent_back->pack('N', part.rows.data());
    part.bias_sums.assign(part.width, 0.0f);
  });
  const float* from_top = output_back(*top[0]);
  std::vector<float> dh(size);
  std::vector<std::vector<float>> carried(states_.size() - 1, std::vector<float>(size));
  for (int64_t t = steps_ - 1; t >= 0; --t) {
    for_parts([&](Part& part) {
      const Units units = part.units;
      for (int64_t n = 0; n < streams_; ++n) {
        const int64_t at = n * hidden_ + units.begin;
        std::copy_n(from_top + t * size + at, units.count, dh.begin() + at);
        if (t + 1 == steps_) continue;
        const float on = cont[(t + 1) * streams_ + n];
        for (const Part& each : parts_) {
          const float* sums = each.to_before[t % 2].data() + at;
          for (int64_t i = 0; i < units.count; ++i) dh[at + i] += on * sums[i];
        }
      }
      const int64_t first = t * streams_ * part.width;
      float* da = part.da.data() + first;
      step_back(t, cont + t * streams_, units, part.gates.data() + first, dh.data(), carried, da);
      for (int64_t n = 0; n < streams_; ++n) {
        for (int64_t i = 0; i < part.width; ++i) part.bias_sums[i] += da[n * part.width + i];
      }
      // Others still read what the step before has written.
      if (t > 0) part.recurrent_back->run(da, nullptr, part.to_before[1 - t % 2].data());
    });
  }

  struct Target {
    float* values = nullptr;
    bool fresh = false;
  };
  const auto target = [&](int index) {
    Tensor& diff = params[index]->diff;
    if (!param_gradient[index]) return Target();
    const bool fresh = diff.is_zero();
    return Target{fresh ? diff.overwrite() : diff.write(), fresh};
  };
  const Target dw_x = target(0), db = target(1), dw_h = target(weights_h());
  const float* x = bottom[0]->data.read();
  for_parts([&](Part& part) {
    const auto add = [&](const Target& to, const float* from, int64_t columns) {
      for_gates(part.units, [&](int64_t own, int64_t row) {
        const float* values = from + own * columns;
        float* sums = to.values + row * columns;
        const int64_t count = part.units.count * columns;
        if (to.fresh) {
          std::copy_n(values, count, sums);
        } else {
          for (int64_t i = 0; i < count; ++i) sums[i] += values[i];
        }
      });
    };
    const auto add_product = [&](const Product& product, const Target& to, const float* input, int64_t columns) {
      if (to.values == nullptr) return;
      part.rows.resize(part.width * columns);
      product.run(part.da.data(), input, part.rows.data());
      add(to, part.rows.data(), columns);
    };
    add_product(*part.weights_x, dw_x, x, inputs_);
    add_product(*part.weights_h, dw_h, conted_.data(), hidden_);
    if (db.values != nullptr) add(db, part.bias_sums.data(), 1);
  });
  if (propagate_down[0]) {
    float* dx = bottom[0]->diff.overwrite();
    for (Part& part : parts_) {
      take_rows(part, params[0]->data.read(), inputs_);
      part.inputs_back->pack('N', part.rows.data());
      part.inputs_back->run(part.da.data(), nullptr, dx);
    }
  }
  if (!static_) return;
  std::vector<float> sums(streams_ * width);
  for (const Part& part : parts_) {
    for (int64_t row = 0; row < rows; ++row) {
      for_gates(part.units, [&](int64_t own, int64_t column) {
        const float* from = part.da.data() + row * part.width + own;
        float* to = sums.data() + row % streams_ * width + column;
        for (int64_t i = 0; i < part.units.count; ++i) to[i] += from[i];
      });
    }
  }
  if (param_gradient[2]) {
    multiply('T', 'N', width, static_inputs_, streams_, sums.data(), bottom[2]->data.read(), 1.0f,
             params[2]->diff.write());
  }
  if (propagate_down[2]) {
    multiply('N', 'N', streams_, static_inputs_, width, sums.data(), params[2]->data.read(), 0.0f,
             bottom[2]->diff.overwrite());
  }
}

int64_t RecurrentLayer::multiply_adds(const Blobs&, const Blobs&) const {
  const int64_t width = gates_ * hidden_;
  return steps_ * streams_ * width * (inputs_ + hidden_) + streams_ * width * static_inputs_;
}

}  // namespace sparknet
