#include "core/recurrent.h"

#include <omp.h>

#include <algorithm>

#include "core/error.h"
#include "core/matrix.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/wide.h"

namespace sparknet {

namespace {

std::shared_ptr<float> zeros(int64_t floats) {
  std::shared_ptr<float> memory = allocate(floats);
  std::fill_n(memory.get(), floats, 0.0f);
  return memory;
}

// `lanes` columns of a row-major matrix, into a panel and out of one.
void to_panel(const float* from, int64_t rows, int64_t columns, int64_t lanes, float* panel) {
  for (int64_t row = 0; row < rows; ++row) std::copy_n(from + row * columns, lanes, panel + row * kLanes);
}

void from_panel(const float* panel, int64_t rows, int64_t columns, int64_t lanes, float* to) {
  for (int64_t row = 0; row < rows; ++row) std::copy_n(panel + row * kLanes, lanes, to + row * columns);
}

// What is not a number in a column that fills up a panel would, times zero, spread to others.
void clear_padding(float* panel, int64_t rows, int64_t lanes) {
  for (int64_t row = 0; row < rows; ++row) std::fill_n(panel + row * kLanes + lanes, kLanes - lanes, 0.0f);
}

SPARKNET_WIDE void transpose_block(const float* from, float* to) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < kLanes; ++j) to[i * kLanes + j] = from[j * kLanes + i];
  }
}

// y = on x, or += that.
SPARKNET_WIDE void scale(int64_t count, const float* on, const float* x, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) y[i] = on[i] * x[i];
}

SPARKNET_WIDE void add_scaled(int64_t count, const float* on, const float* x, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) y[i] += on[i] * x[i];
}

SPARKNET_WIDE void add(int64_t count, const float* x, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) y[i] += x[i];
}

// Adds the rows of a panel.
SPARKNET_WIDE void add_rows(const float* panel, int64_t rows, float* sums) {
  for (int64_t row = 0; row < rows; ++row) {
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) sums[i] += panel[row * kLanes + i];
  }
}

}  // namespace

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
  panels_h_ = panels_of(hidden_);
  panels_x_ = panels_of(inputs_);
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

// Calls body(panel of the part, the gates' first row in a parameter, rows) for each gate and 16 units or what is left.
template <typename Body>
void RecurrentLayer::for_gates(const Part& part, const Body& body) const {
  for (int64_t gate = 0; gate < gates_; ++gate) {
    for (int64_t i = 0; i < part.count; ++i) {
      const int64_t panel = part.first + i;
      body(gate * part.count + i, gate * hidden_ + panel * kLanes, lanes(hidden_, panel));
    }
  }
}

// Calls body(offset in weights_back, whether of W_h or else of W_x, offset in that, columns) for each row of the part's
// gates and 16 columns or what is left.
template <typename Body>
void RecurrentLayer::for_chunks(const Part& part, const Body& body) const {
  const int64_t stride = panels_of_gates(part) * kLanes * kLanes;
  for_gates(part, [&](int64_t own, int64_t first, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = (own * kLanes + i) * kLanes, row = first + i;
      for (int64_t p = 0; p < panels_h_; ++p) {
        body(p * stride + at, true, row * hidden_ + p * kLanes, lanes(hidden_, p));
      }
      for (int64_t p = 0; p < panels_x_; ++p) {
        body((panels_h_ + p) * stride + at, false, row * inputs_ + p * kLanes, lanes(inputs_, p));
      }
    }
  });
}

void RecurrentLayer::plan() {
  const int threads = omp_get_max_threads();
  const Shape wanted = {steps_, streams_, threads};
  if (planned_ == wanted) return;
  planned_.clear();                    // until all memory has been had
  constexpr int64_t kLeast = 1 << 17;  // multiply-adds in a step that are worth a thread
  constexpr int64_t kRows = 128;  // of gradients, which are still in the cache when those of the weights are computed
  const int64_t each = gates_ * hidden_ * (inputs_ + hidden_);
  const int64_t most = std::max<int64_t>(streams_ * each / kLeast, 1);
  const int64_t count = std::min({static_cast<int64_t>(threads), panels_h_, most});
  const int64_t panels = panels_h_ + panels_x_;
  at_once_ = std::clamp<int64_t>(kRows / streams_, 1, steps_);
  const int64_t groups = (steps_ + at_once_ - 1) / at_once_;
  inputs_of_steps_ = zeros(groups * panels * panel_stride(at_once_ * streams_));
  conts_ = allocate(steps_ * streams_ * kLanes);
  for (Memory& values : states_) values = zeros((steps_ + 1) * state_size());
  carried_.clear();
  parts_.clear();
  for (int64_t i = 0; i < count; ++i) {
    Part part;
    part.index = i;
    part.first = panels_h_ * i / count;
    part.count = panels_h_ * (i + 1) / count - part.first;
    const int64_t rows = panels_of_gates(part) * kLanes;
    part.weights = zeros(rows * panels * kLanes);
    part.weights_back = zeros(rows * panels * kLanes);
    part.bias = zeros(rows);
    if (static_) part.from_static = zeros(streams_ * rows);
    part.gates = allocate(steps_ * streams_ * rows);
    parts_.push_back(std::move(part));
  }
  planned_ = wanted;
}

void RecurrentLayer::plan_back() {
  if (!carried_.empty()) return;
  for (Part& part : parts_) {
    const int64_t rows = panels_of_gates(part) * kLanes, columns = (panels_h_ + panels_x_) * kLanes;
    part.dh = zeros(streams_ * kLanes);
    part.da = zeros(panels_of_gates(part) * panel_stride(at_once_ * streams_));
    for (Memory& gradient : part.to_input) gradient = allocate(streams_ * columns);
    part.d_weights = allocate(rows * columns);
    part.d_bias = allocate(rows);
    if (static_) part.d_static = allocate(streams_ * rows);
  }
  std::vector<Memory> carried;
  for (size_t k = 0; k < states_.size(); ++k) carried.push_back(allocate(state_size()));
  carried_ = std::move(carried);
}

void RecurrentLayer::pack(Part& part) {
  const Tensor &weights_x = params[0]->data, &weights_h = params[this->weights_h()]->data;
  const float *x = weights_x.read(), *h = weights_h.read();
  const bool known = weights_x.version() != 0 && weights_h.version() != 0;
  if (known && part.version_x == weights_x.version() && part.version_h == weights_h.version()) return;
  for_chunks(part, [&](int64_t at, bool of_h, int64_t from, int64_t columns) {
    std::copy_n((of_h ? h : x) + from, columns, part.weights_back.get() + at);
  });
  const int64_t rows = panels_of_gates(part), panels = panels_h_ + panels_x_;
  constexpr int64_t kBlock = kLanes * kLanes;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t panel = 0; panel < panels; ++panel) {
      transpose_block(part.weights_back.get() + (panel * rows + row) * kBlock,
                      part.weights.get() + (row * panels + panel) * kBlock);
    }
  }
  part.version_x = weights_x.version();
  part.version_h = weights_h.version();
}

Panels<float> RecurrentLayer::input(int64_t t) {
  const int64_t panels = panels_h_ + panels_x_, stride = panel_stride(at_once_ * streams_);
  float* group = inputs_of_steps_.get() + t / at_once_ * panels * stride;
  return {group + t % at_once_ * streams_ * kLanes, stride, panels};
}

RecurrentLayer::Cell RecurrentLayer::cell(const Part& part, int64_t panel, int64_t t) {
  const int64_t count = streams_ * kLanes;
  float* gates = part.gates.get() + (t * panels_of_gates(part) + panel) * count;
  return {t, (part.first + panel) * count, count, conts_.get() + t * count, gates, part.count * count};
}

// The part's share of [cont_t h_(t-1), x_t].
void RecurrentLayer::begin_step(const Part& part, int64_t t, const float* x) {
  const Panels<float> to = input(t);
  const int64_t size = streams_ * kLanes, parts = static_cast<int64_t>(parts_.size());
  for (int64_t panel = part.first; panel < part.first + part.count; ++panel) {
    scale(size, conts_.get() + t * size, state(0, t) + panel * size, to.values + panel * to.stride);
  }
  for (int64_t p = panels_x_ * part.index / parts; p < panels_x_ * (part.index + 1) / parts; ++p) {
    to_panel(x + t * streams_ * inputs_ + p * kLanes, streams_, inputs_, lanes(inputs_, p),
             to.values + (panels_h_ + p) * to.stride);
  }
}

// The state before the first step, and any one, as N × H.
void RecurrentLayer::read_state(int k, const float* rows) {
  for (int64_t p = 0; p < panels_h_; ++p) {
    to_panel(rows + p * kLanes, streams_, hidden_, lanes(hidden_, p), state(k, 0) + p * streams_ * kLanes);
  }
}

void RecurrentLayer::write_state(int k, int64_t t, float* rows) {
  for (int64_t p = 0; p < panels_h_; ++p) {
    from_panel(state(k, t) + p * streams_ * kLanes, streams_, hidden_, lanes(hidden_, p), rows + p * kLanes);
  }
}

void RecurrentLayer::copy_outputs(float* to) {
  const int64_t size = streams_ * hidden_;
  parallel_for(steps_, std::max<int64_t>(kElementGrain / size, 1), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) write_state(0, t + 1, to + t * size);
  });
}

void RecurrentLayer::forward(const Blobs& bottom, const Blobs& top) {
  const int64_t width = gates_ * hidden_, rows = steps_ * streams_;
  if (rows == 0) return;
  plan();
  for (size_t k = 0; k < states_.size(); ++k) {
    const int index = static_cast<int>(k);
    if (exposed_) {
      read_state(index, bottom[(static_ ? 3 : 2) + k]->data.read());
    } else if (k < last_.size()) {
      std::copy(last_[k].begin(), last_[k].end(), state(index, 0));
    } else {
      std::fill_n(state(index, 0), state_size(), 0.0f);
    }
  }
  std::vector<float> from_static;
  if (static_) {
    from_static.resize(streams_ * width);
    multiply('N', 'T', streams_, width, static_inputs_, bottom[2]->data.read(), params[2]->data.read(), 0.0f,
             from_static.data());
  }
  const float *x = bottom[0]->data.read(), *cont = bottom[1]->data.read();
  for (int64_t row = 0; row < rows; ++row) std::fill_n(conts_.get() + row * kLanes, kLanes, cont[row]);
  for (const auto& blob : params) blob->data.read();  // row-major from here on, for all threads
  for_parts([&](Part& part) {
    pack(part);
    for_gates(part, [&](int64_t own, int64_t row, int64_t count) {
      std::copy_n(params[1]->data.read() + row, count, part.bias.get() + own * kLanes);
      if (!static_) return;
      to_panel(from_static.data() + row, streams_, width, count, part.from_static.get() + own * streams_ * kLanes);
    });
    begin_step(part, 0, x);
  });

  const int64_t size = streams_ * kLanes;
  for (int64_t t = 0; t < steps_; ++t) {
    for_parts([&](Part& part) {
      const int64_t panels = panels_of_gates(part);
      float* gates = cell(part, 0, t).gates;
      const Panels<float> from = input(t);
      multiply_panels(streams_, {from.values, from.stride, from.count},
                      {part.weights.get(), from.count * kLanes * kLanes, panels}, part.bias.get(),
                      {gates, size, panels});
      if (static_) add(panels * size, part.from_static.get(), gates);
      for_gates(part, [&](int64_t own, int64_t, int64_t count) {
        if (count < kLanes) clear_padding(gates + own * size, streams_, count);
      });
      for (int64_t panel = 0; panel < part.count; ++panel) step(cell(part, panel, t));
      if (t + 1 < steps_) begin_step(part, t + 1, x);
    });
  }
  forwarded_ = true;

  last_.resize(states_.size());
  for (size_t k = 0; k < states_.size(); ++k) {
    const int index = static_cast<int>(k);
    last_[k].assign(state(index, steps_), state(index, steps_) + state_size());
    if (exposed_) write_state(index, steps_, top[1 + k]->data.overwrite());
  }
  output(*top[0]);
}

// To part.dh, for 16 units: what comes from above and from the step after.
void RecurrentLayer::gradient_of_h(const Part& part, int64_t panel, int64_t t, const float* from_top) {
  const int64_t index = part.first + panel, size = streams_ * kLanes;
  to_panel(from_top + t * streams_ * hidden_ + index * kLanes, streams_, hidden_, lanes(hidden_, index), part.dh.get());
  for (const Part& each : parts_) {
    if (t + 1 == steps_) break;
    add_scaled(size, conts_.get() + (t + 1) * size, each.to_input[(t + 1) % 2].get() + index * size, part.dh.get());
  }
  if (lanes(hidden_, index) < kLanes) clear_padding(part.dh.get(), streams_, lanes(hidden_, index));
}

// The part's share of the gradient of x_t.
void RecurrentLayer::gradient_of_x(const Part& part, int64_t t, float* dx) {
  const int64_t size = streams_ * kLanes, parts = static_cast<int64_t>(parts_.size());
  for (int64_t p = panels_x_ * part.index / parts; p < panels_x_ * (part.index + 1) / parts; ++p) {
    const auto from = [&](const Part& each) { return each.to_input[t % 2].get() + (panels_h_ + p) * size; };
    float* sums = from(parts_[0]);
    for (int64_t i = 1; i < parts; ++i) add(size, from(parts_[i]), sums);
    from_panel(sums, streams_, inputs_, lanes(inputs_, p), dx + t * streams_ * inputs_ + p * kLanes);
  }
}

// To the gradients of the bias and of what comes from the static input.
void RecurrentLayer::add_sums(const Part& part, const float* da) {
  const int64_t size = streams_ * kLanes, stride = panel_stride(at_once_ * streams_);
  for (int64_t panel = 0; panel < panels_of_gates(part); ++panel) {
    add_rows(da + panel * stride, streams_, part.d_bias.get() + panel * kLanes);
    if (static_) add(size, da + panel * stride, part.d_static.get() + panel * size);
  }
}

void RecurrentLayer::backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) {
  const int64_t width = gates_ * hidden_, size = streams_ * kLanes;
  if (propagate_down[1]) {
    throw Error(ErrorKind::kState,
                join("there is no gradient with respect to the continuation indicators `", bottom[1]->name,
                     "`, but a layer below asks for one"),
                1);
  }
  if (steps_ * streams_ == 0) return;
  if (!forwarded_) fail(ErrorKind::kState, "backward needs a forward pass before it");

  plan_back();
  for (const auto& blob : params) blob->data.read();
  for (const Memory& gradient : carried_) std::fill_n(gradient.get(), state_size(), 0.0f);
  for_parts([&](Part& part) {
    pack(part);
    const int64_t rows = panels_of_gates(part) * kLanes;
    std::fill_n(part.d_bias.get(), rows, 0.0f);
    if (static_) std::fill_n(part.d_static.get(), streams_ * rows, 0.0f);
  });
  const float* from_top = output_back(*top[0]);
  float* dx = propagate_down[0] ? bottom[0]->diff.overwrite() : nullptr;
  const bool learns = param_gradient[0] || param_gradient[weights_h()];
  const int64_t stride = panel_stride(at_once_ * streams_);
  for (int64_t t = steps_ - 1; t >= 0; --t) {
    for_parts([&](Part& part) {
      const int64_t panels = panels_of_gates(part), block = panels * kLanes * kLanes;
      if (dx != nullptr && t + 1 < steps_) gradient_of_x(part, t + 1, dx);
      float* da = part.da.get() + t % at_once_ * size;
      for (int64_t panel = 0; panel < part.count; ++panel) {
        gradient_of_h(part, panel, t, from_top);
        step_back(cell(part, panel, t), part.dh.get(), da + panel * stride, part.count * stride);
      }
      add_sums(part, da);
      if (t > 0 || dx != nullptr) {
        const int64_t columns = dx != nullptr ? panels_h_ + panels_x_ : panels_h_;
        multiply_panels(streams_, {da, stride, panels}, {part.weights_back.get(), block, columns}, nullptr,
                        {part.to_input[t % 2].get(), size, columns});
      }
      if (!learns || t % at_once_ != 0) return;
      const Panels<float> from = input(t);
      multiply_transposed_panels(std::min(at_once_, steps_ - t) * streams_, {part.da.get(), stride, panels},
                                 {from.values, from.stride, from.count}, {part.d_weights.get(), block, from.count},
                                 t + at_once_ < steps_);
    });
  }

  struct Target {
    float* values = nullptr;
    bool fresh = false;
    void take(const float* from, int64_t count, int64_t at) const {
      for (int64_t i = 0; values != nullptr && i < count; ++i) {
        values[at + i] = fresh ? from[i] : values[at + i] + from[i];
      }
    }
  };
  const auto target = [&](int index) {
    Tensor& diff = params[index]->diff;
    if (!param_gradient[index]) return Target();
    const bool fresh = diff.is_zero();
    return Target{fresh ? diff.overwrite() : diff.write(), fresh};
  };
  const Target dw_x = target(0), db = target(1), dw_h = target(weights_h());
  std::vector<float> sums(static_ ? streams_ * width : 0);
  for_parts([&](Part& part) {
    if (dx != nullptr) gradient_of_x(part, 0, dx);
    for_chunks(part, [&](int64_t at, bool of_h, int64_t to, int64_t columns) {
      (of_h ? dw_h : dw_x).take(part.d_weights.get() + at, columns, to);
    });
    for_gates(part, [&](int64_t own, int64_t row, int64_t count) {
      db.take(part.d_bias.get() + own * kLanes, count, row);
      if (static_) from_panel(part.d_static.get() + own * size, streams_, width, count, sums.data() + row);
    });
  });
  if (!static_) return;
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
