#include <algorithm>

#include "core/error.h"
#include "core/layer.h"
#include "core/matrix.h"

namespace sparknet {

// y = W x + b ("fully connected"): the axes from `axis` on are one vector of K values, those before it the M rows.
//
// Weights: num_output × K, or K × num_output with `transpose`. They are used as they lie (core/matrix.cpp): for as few
// rows as a batch has, reordering them would cost as much as multiplying with them.
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
    rows_ = count(shape, 0, axis_);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (rows_ == 0) return;
    float* y = top[0]->data.overwrite();
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
      const float* x = bottom[0]->data.read();
      Tensor& diff = params[0]->diff;
      const float beta = diff.is_zero() ? 0.0f : 1.0f;
      float* dw = beta == 0.0f ? diff.overwrite() : diff.write();
      if (transpose_) {
        multiply('T', 'N', inputs_, outputs_, rows_, x, dy, beta, dw);
      } else {
        multiply('T', 'N', outputs_, inputs_, rows_, dy, x, beta, dw);
      }
    }
    if (bias_ && param_gradient[1]) add_column_sums(dy, rows_, outputs_, params[1]->diff.write());
    if (propagate_down[0]) {
      float* dx = bottom[0]->diff.overwrite();
      multiply('N', transpose_ ? 'T' : 'N', rows_, inputs_, outputs_, dy, params[0]->data.read(), 0.0f, dx);
    }
  }

  int64_t multiply_adds(const Blobs&, const Blobs&) const override { return rows_ * inputs_ * outputs_; }

 private:
  int axis_ = 1;
  int64_t rows_ = 0, inputs_ = 0, outputs_ = 0;
  bool transpose_ = false, bias_ = true;
};

REGISTER_LAYER(InnerProductLayer, LayerSpec("InnerProduct", "matrix product with learned weights, plus a bias")
                                      .messages({"inner_product_param"})
                                      .positional({"num_output"})
                                      .reads_bottom()
                                      .most(2));

}  // namespace sparknet
