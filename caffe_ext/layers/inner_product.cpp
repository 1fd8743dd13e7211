#include <algorithm>
#include <optional>

#include "core/dnnl_util.h"
#include "core/error.h"
#include "core/layer.h"
#include "core/matrix.h"

namespace sparknet {

namespace {

using Type = dnnl::memory::data_type;

// An inner product of operands in bfloat16; sums and results are float32. One copy of the weights serves the forward
// pass and the gradient of the bottom, until the weights change.
class Bfloat16InnerProduct {
 public:
  Bfloat16InnerProduct(int64_t rows, int64_t inputs, int64_t outputs, bool bias)
      : rows_(rows), inputs_(inputs), outputs_(outputs), bias_(bias), forward_pd_(describe()), forward_(forward_pd_) {}

  void forward(const Tensor& x, const Tensor& weights, const float* bias, Bfloat16Copies& copies, float* y) {
    const auto& pd = forward_pd_;
    std::unordered_map<int, dnnl::memory> arguments = {{DNNL_ARG_SRC, copies.get(x, pd.src_desc())},
                                                       {DNNL_ARG_WEIGHTS, weights_.get(weights, pd.weights_desc())},
                                                       {DNNL_ARG_DST, wrap_memory(pd.dst_desc(), y)}};
    if (bias_) arguments[DNNL_ARG_BIAS] = wrap_memory(pd.bias_desc(), bias);
    execute(forward_, arguments);
  }

  void backward_data(const Tensor& dy, const Tensor& weights, Bfloat16Copies& copies, float* dx) {
    const dnnl::inner_product_backward_data::primitive_desc pd(dnnl_engine(), plain_desc({rows_, inputs_}),
                                                               any_desc({outputs_, inputs_}, Type::bf16),
                                                               operand(outputs_), forward_pd_);
    execute(dnnl::inner_product_backward_data(pd), {{DNNL_ARG_DIFF_DST, copies.get(dy, pd.diff_dst_desc())},
                                                    {DNNL_ARG_WEIGHTS, weights_.get(weights, pd.weights_desc())},
                                                    {DNNL_ARG_DIFF_SRC, wrap_memory(pd.diff_src_desc(), dx)}});
  }

  // dw (outputs × inputs) = the gradient of the weights, or += that.
  void backward_weights(const Tensor& dy, const Tensor& x, bool adds, Bfloat16Copies& copies, float* dw) {
    dnnl::primitive_attr attributes;
    if (adds) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    const dnnl::matmul::primitive_desc pd(dnnl_engine(), transposed_desc(outputs_, rows_, Type::bf16), operand(inputs_),
                                          plain_desc({outputs_, inputs_}), attributes);
    const auto* transposed = static_cast<const float*>(copies.get(dy, operand(outputs_)).get_data_handle());
    execute(dnnl::matmul(pd), {{DNNL_ARG_SRC, wrap_memory(pd.src_desc(), transposed)},
                               {DNNL_ARG_WEIGHTS, copies.get(x, operand(inputs_))},
                               {DNNL_ARG_DST, wrap_memory(pd.dst_desc(), dw)}});
  }

 private:
  dnnl::memory::desc operand(int64_t columns) const {
    return {{rows_, columns}, Type::bf16, dnnl::memory::format_tag::ab};
  }

  dnnl::inner_product_forward::primitive_desc describe() const {
    const dnnl::memory::desc bias = bias_ ? plain_desc({outputs_}) : dnnl::memory::desc();
    return {
        dnnl_engine(), dnnl::prop_kind::forward_training, operand(inputs_), any_desc({outputs_, inputs_}, Type::bf16),
        bias,          plain_desc({rows_, outputs_})};
  }

  const int64_t rows_, inputs_, outputs_;
  const bool bias_;
  const dnnl::inner_product_forward::primitive_desc forward_pd_;
  const dnnl::inner_product_forward forward_;
  Converted weights_;
};

}  // namespace

// y = W x + b ("fully connected"): the axes from `axis` on are one vector of K values, those before it the M rows.
//
// Weights: num_output × K, or K × num_output with `transpose`. They are used as they lie (core/matrix.cpp): for as few
// rows as a batch has, reordering them would cost as much as multiplying with them. With precision bf16 large ones are
// multiplied in bfloat16.
class InnerProductLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    const Message& fields = param().message("inner_product_param");
    const Shape& shape = bottom[0]->shape();
    axis_ = canonical_axis(shape, fields.integer("axis"));
    inputs_ = count(shape, axis_, bottom[0]->data.axes());
    outputs_ = fields.integer("num_output");
    if (outputs_ < 1) fail(ErrorKind::kField, "num_output must be at least 1");
    if (inputs_ < 1) {
      fail(ErrorKind::kShape, "the bottom (", to_string(shape), ") has no values from axis ", axis_, " on");
    }
    transpose_ = fields.flag("transpose");
    add_param(transpose_ ? Shape{inputs_, outputs_} : Shape{outputs_, inputs_}, fields.message("weight_filler"));
    bias_ = fields.flag("bias_term");
    if (bias_) add_param({outputs_}, fields.message("bias_filler"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    const int axes = bottom[0]->data.axes();
    const int64_t inputs = axes < axis_ ? 0 : count(shape, axis_, axes);
    if (inputs != inputs_) {
      fail(ErrorKind::kShape, "the weights are for ", inputs_, " values a row, the bottom (", to_string(shape),
           ") has ", inputs, " from axis ", axis_, " on");
    }
    Shape output(shape.begin(), shape.begin() + axis_);
    output.push_back(outputs_);
    top[0]->reshape(output);
    const int64_t rows = count(shape, 0, axis_);
    if (rows != rows_) rounded_.reset();
    rows_ = rows;
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (rows_ == 0) return;
    float* y = top[0]->data.overwrite();
    if (in_bfloat16()) {
      if (!rounded_) rounded_.emplace(rows_, inputs_, outputs_, bias_);
      const float* bias = bias_ ? params[1]->data.read() : nullptr;
      rounded_->forward(bottom[0]->data, params[0]->data, bias, *copies, y);
      return;
    }
    if (bias_) {
      const float* bias = params[1]->data.read();
      for (int64_t row = 0; row < rows_; ++row) std::copy_n(bias, outputs_, y + row * outputs_);
    }
    multiply('N', transpose_ ? 'N' : 'T', rows_, outputs_, inputs_, bottom[0]->data.read(), params[0]->data.read(),
             bias_ ? 1.0f : 0.0f, y);
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (rows_ == 0) return;
    const float* dy = top[0]->diff.read();
    if (param_gradient[0]) {
      Tensor& diff = params[0]->diff;
      const bool adds = !diff.is_zero();
      float* dw = adds ? diff.write() : diff.overwrite();
      if (rounded_) {
        rounded_->backward_weights(top[0]->diff, bottom[0]->data, adds, *copies, dw);
      } else if (transpose_) {
        multiply('T', 'N', inputs_, outputs_, rows_, bottom[0]->data.read(), dy, adds ? 1.0f : 0.0f, dw);
      } else {
        multiply('T', 'N', outputs_, inputs_, rows_, dy, bottom[0]->data.read(), adds ? 1.0f : 0.0f, dw);
      }
    }
    if (bias_ && param_gradient[1]) add_column_sums(dy, rows_, outputs_, params[1]->diff.write());
    if (propagate_down[0]) {
      float* dx = bottom[0]->diff.overwrite();
      if (rounded_) return rounded_->backward_data(top[0]->diff, params[0]->data, *copies, dx);
      multiply('N', transpose_ ? 'T' : 'N', rows_, inputs_, outputs_, dy, params[0]->data.read(), 0.0f, dx);
    }
  }

  int64_t multiply_adds(const Blobs&, const Blobs&) const override { return rows_ * inputs_ * outputs_; }

 private:
  // Whether that is faster (measured with AMX): rounding weights, which training does in every step, costs as much as
  // multiplying with them for some 16 rows, and small ones take no time either way.
  bool in_bfloat16() const {
    constexpr int64_t kLarge = 1 << 19, kRows = 32;
    return precision == Precision::kBfloat16 && !transpose_ && inputs_ * outputs_ >= kLarge &&
           (phase() == Phase::kTest || rows_ >= kRows);
  }

  int axis_ = 1;
  int64_t rows_ = 0, inputs_ = 0, outputs_ = 0;
  bool transpose_ = false, bias_ = true;
  std::optional<Bfloat16InnerProduct> rounded_;
};

REGISTER_LAYER(InnerProductLayer, LayerSpec("InnerProduct", "matrix product with learned weights, plus a bias")
                                      .messages({"inner_product_param"})
                                      .positional({"num_output"})
                                      .reads_bottom()
                                      .most(2));

}  // namespace sparknet
