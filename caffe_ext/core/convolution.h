// What Convolution and Deconvolution have in common: one is the other's backward pass.
#pragma once

#include <optional>
#include <string>

#include "core/dnnl_util.h"
#include "core/folding.h"
#include "core/layer.h"
#include "core/window.h"
#include "core/winograd.h"

namespace sparknet {

// Fields, parameters, shapes, and oneDNN's three primitives of one convolution from a `wide` array (Convolution's
// bottom, Deconvolution's top) to a `narrow` one with a value for each window.
//
// Weights: channels of the narrow array × channels of the wide one / group × kernel.
class ConvolutionBase : public Layer {
 public:
  void setup(const Blobs& bottom, const Blobs& top) override;
  void reshape(const Blobs& bottom, const Blobs& top) override;
  int64_t multiply_adds(const Blobs& bottom, const Blobs& top) const override;
  bool keeps_top() const override { return false; }

 protected:
  // `transposed`: the bottoms are the narrow arrays.
  ConvolutionBase(const Message& param, Phase phase, bool transposed) : Layer(param, phase), transposed_(transposed) {}

  struct Channels {
    int64_t outputs, groups;
  };
  // num_output and group, for a bottom of that many channels.
  virtual Channels channels_of(const Message& fields, int64_t bottom_channels) const;

  bool has_bias() const { return params.size() > 1; }
  const Window& window() const { return window_; }

  // Whether `next`, which works in place on the narrow array, can be done in convolve(), for nets that are not trained:
  // BatchNorm and Scale by other weights, then a ReLU.
  bool absorb_in_inference(const Layer& next);
  // narrow = the convolution of wide, plus the bias where that belongs to the narrow array; if `fused`, with the layers
  // absorbed.
  void convolve(const Tensor& wide, Tensor& narrow);
  // wide = the gradient of convolve() in direction `narrow`.
  void convolve_back(const Tensor& narrow, Tensor& wide);
  // Adds to the diff of the weights, and to the bias's where that belongs to the narrow array.
  void add_gradients(const Tensor& wide, const Tensor& narrow);

 private:
  template <typename Primitive>
  struct Pass {
    typename Primitive::primitive_desc pd;
    Primitive primitive;
    explicit Pass(typename Primitive::primitive_desc description) : pd(std::move(description)), primitive(pd) {}
  };

  bool inner_bias() const { return has_bias() && !transposed_; }
  bool depthwise() const { return groups_ > 1 && groups_ == channels_ && groups_ == outputs_; }
  Shape folded(const Shape& shape) const;
  Shape weight_dims() const;
  // The description of a primitive, made by `make(type)` in the type that the primitive shall multiply in.
  template <typename Make>
  auto in_precision(const Make& make) const;
  // The layout asked of a primitive that multiplies in `multiplied`: oneDNN's choice, but channels last in bfloat16,
  // and where its blocks of channels would be padding for a good part, LeNet's 20 and 50 channels say.
  dnnl::memory::desc values_desc(const Shape& shape, dnnl::memory::data_type type,
                                 dnnl::memory::data_type multiplied) const;
  // The tensor as a primitive reads it.
  dnnl::memory operand(const Tensor& tensor, const dnnl::memory::desc& desc) const;
  dnnl::memory::desc bias_desc(bool wanted) const;
  // What core/winograd.h is to do, if the layer's settings let it.
  std::optional<Winograd::Problem> winograd_problem() const;
  // The layout that it reads and writes.
  LayoutPtr blocks(const Shape& shape) const;
  const dnnl::convolution_forward::primitive_desc& plan();
  dnnl::convolution_forward::primitive_desc forward_description(bool with_bias,
                                                                const dnnl::primitive_attr& attributes) const;

  const bool transposed_;
  Window window_;
  int64_t channels_ = 0, outputs_ = 0, groups_ = 1;  // of bottom and top
  Shape wide_, narrow_;                              // for which the primitives are

  std::optional<Winograd> winograd_;  // does all passes in place of oneDNN, where that is faster
  std::optional<dnnl::convolution_forward::primitive_desc> plan_;
  std::optional<dnnl::convolution_forward> forward_;
  std::optional<Pass<dnnl::convolution_forward>> fused_forward_;
  std::optional<Pass<dnnl::convolution_backward_data>> backward_data_;
  std::optional<Pass<dnnl::convolution_backward_weights>> backward_weights_;
  Folding folding_;
  bool rectifies_ = false;  // a ReLU is absorbed
  Converted weights_, backward_data_weights_;
  dnnl::memory weights_gradient_, bias_gradient_;
};

// How the convolutions are registered.
inline LayerSpec convolution_spec(const std::string& type, const std::string& summary) {
  return LayerSpec(type, summary)
      .messages({"convolution_param"})
      .positional({"num_output", "kernel_size"})
      .bottoms(1, LayerSpec::kAny)
      .tops(1, LayerSpec::kAny)
      .same_tops()
      .reads_bottom()
      .most(2);
}

}  // namespace sparknet
