#include "core/recurrent.h"

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

  // What does not depend on the state, for all steps at once.
  gate_values_.resize(rows * width);
  const float* bias = params[1]->data.read();
  std::vector<float> constant(streams_ * width);
  for (int64_t n = 0; n < streams_; ++n) std::copy_n(bias, width, constant.begin() + n * width);
  if (static_) {
    multiply('N', 'T', streams_, width, static_inputs_, bottom[2]->data.read(), params[2]->data.read(), 1.0f,
             constant.data());
  }
  parallel_for(steps_, std::max<int64_t>(kElementGrain / (streams_ * width), 1), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) std::copy(constant.begin(), constant.end(), gate_values(t));
  });
  multiply('N', 'T', rows, width, inputs_, bottom[0]->data.read(), params[0]->data.read(), 1.0f, gate_values(0));

  conted_.resize(rows * hidden_);
  const float* cont = bottom[1]->data.read();
  // A step's few rows times the transpose are faster where that lies as such.
  const dnnl::memory::desc transposed({width, hidden_}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::ba);
  const dnnl::memory copy = weights_.get(params[weights_h()]->data, transposed);
  const auto* weights = static_cast<const float*>(copy.get_data_handle());
  for (int64_t t = 0; t < steps_; ++t) {
    const float* h = state(0, t);
    float* conted = conted_.data() + t * size;
    for (int64_t n = 0; n < streams_; ++n) {
      const float on = cont[t * streams_ + n];
      for (int64_t i = n * hidden_; i < (n + 1) * hidden_; ++i) conted[i] = on * h[i];
    }
    multiply('N', 'N', streams_, width, hidden_, conted, weights, 1.0f, gate_values(t));
    step(t, cont + t * streams_);
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

  dh_.resize(rows * hidden_);
  da_.resize(rows * width);
  float *dh = dh_.data(), *da = da_.data();
  output_back(*top[0], dh);
  std::vector<float> from_next(size);
  std::vector<std::vector<float>> carried(states_.size() - 1, std::vector<float>(size));
  const float* cont = bottom[1]->data.read();
  const float* weights = params[weights_h()]->data.read();
  for (int64_t t = steps_ - 1; t >= 0; --t) {
    float* da_t = da + t * streams_ * width;
    step_back(t, cont + t * streams_, dh + t * size, carried, da_t);
    if (t == 0) break;
    multiply('N', 'N', streams_, hidden_, width, da_t, weights, 0.0f, from_next.data());
    float* before = dh + (t - 1) * size;
    for (int64_t n = 0; n < streams_; ++n) {
      const float on = cont[t * streams_ + n];
      for (int64_t i = n * hidden_; i < (n + 1) * hidden_; ++i) before[i] += on * from_next[i];
    }
  }

  const auto add_product = [&](int index, int64_t over, const float* gradient, const float* input, int64_t inputs) {
    if (!param_gradient[index]) return;
    multiply('T', 'N', width, inputs, over, gradient, input, 1.0f, params[index]->diff.write());
  };
  add_product(0, rows, da, bottom[0]->data.read(), inputs_);
  if (param_gradient[1]) add_column_sums(da, rows, width, params[1]->diff.write());
  add_product(weights_h(), rows, da, conted_.data(), hidden_);
  if (propagate_down[0]) {
    multiply('N', 'N', rows, inputs_, width, da, params[0]->data.read(), 0.0f, bottom[0]->diff.overwrite());
  }
  if (!static_) return;
  std::vector<float> sums(streams_ * width);
  add_column_sums(da, steps_, streams_ * width, sums.data());
  add_product(2, streams_, sums.data(), bottom[2]->data.read(), static_inputs_);
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
