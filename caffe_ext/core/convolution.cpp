#include "core/convolution.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace sparknet {

namespace {

// oneDNN wants at least one spatial axis.
Shape spatial(const Shape& values, int64_t without_axes) { return values.empty() ? Shape{without_axes} : values; }

// oneDNN counts the elements left out between two of the kernel.
Shape gaps(const Window& window) {
  Shape gaps = spatial(window.dilation, 1);
  for (int64_t& gap : gaps) --gap;
  return gaps;
}

using Type = dnnl::memory::data_type;

}  // namespace

void ConvolutionBase::setup(const Blobs& bottom, const Blobs&) {
  const Message& fields = param().message("convolution_param");
  const Shape& shape = bottom[0]->shape();
  window_ = Window(fields, shape);
  channels_ = shape[window_.axis];
  const Channels chosen = channels_of(fields, channels_);
  outputs_ = chosen.outputs;
  groups_ = chosen.groups;
  // Beyond that oneDNN falls back on loops over every pair of places, which take minutes for the smallest arrays.
  constexpr int64_t kWidest = 32767;
  for (const int64_t extent : window_.kernel) {
    if (extent > kWidest)
      fail(ErrorKind::kField, "kernel ", extent, " is larger than ", kWidest, ", the most there is");
  }
  if (outputs_ < 1) fail(ErrorKind::kField, "num_output must be at least 1");
  if (channels_ < 1) fail(ErrorKind::kShape, "the bottom (", to_string(shape), ") has no channels");
  if (groups_ < 1 || channels_ % groups_ != 0 || outputs_ % groups_ != 0) {
    fail(ErrorKind::kField, "group ", groups_, " must divide both the ", channels_,
         " channels of the bottom and num_output ", outputs_);
  }
  Shape weights = transposed_ ? Shape{channels_, outputs_ / groups_} : Shape{outputs_, channels_ / groups_};
  weights.insert(weights.end(), window_.kernel.begin(), window_.kernel.end());
  add_param(weights, fields.message("weight_filler"));
  if (fields.flag("bias_term")) add_param({outputs_}, fields.message("bias_filler"));
}

ConvolutionBase::Channels ConvolutionBase::channels_of(const Message& fields, int64_t) const {
  return {fields.integer("num_output"), fields.integer("group")};
}

void ConvolutionBase::reshape(const Blobs& bottom, const Blobs& top) {
  const Shape& shape = bottom[0]->shape();
  for (size_t i = 1; i < bottom.size(); ++i) {
    if (bottom[i]->shape() == shape) continue;
    throw Error(ErrorKind::kShape,
                join("all bottoms must have one shape: ", to_string(bottom[i]->shape()), " is not ", to_string(shape)),
                static_cast<int>(i));
  }
  window_.check_axes(shape);
  if (shape[window_.axis] != channels_) {
    fail(ErrorKind::kShape, "the weights are for ", channels_, " channels, the bottom (", to_string(shape), ") has ",
         shape[window_.axis]);
  }
  Shape output(shape.begin(), shape.begin() + window_.axis);
  output.push_back(outputs_);
  const Shape extents = transposed_ ? window_.spread(shape) : window_.places(shape);
  output.insert(output.end(), extents.begin(), extents.end());
  for (Blob* blob : top) blob->reshape(output);
  const Shape &wide = transposed_ ? output : shape, &narrow = transposed_ ? shape : output;
  if (wide != wide_ || narrow != narrow_) {
    wide_ = wide;
    narrow_ = narrow;
    plan_.reset();
    forward_.reset();
    fused_forward_.reset();
    backward_data_.reset();
    backward_weights_.reset();
    winograd_.reset();
    if (const auto problem = winograd_problem(); problem && Winograd::pays(*problem)) winograd_.emplace(*problem);
  }
}

int64_t ConvolutionBase::multiply_adds(const Blobs& bottom, const Blobs&) const {
  // Each value of the narrow array meets the weights of its channel once.
  const int64_t narrow_channels = narrow_[window_.axis];
  const int64_t each = count(narrow_) * (params[0]->count() / narrow_channels);  // below 2^62
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const auto bottoms = static_cast<int64_t>(bottom.size());
  return each > kMost / bottoms ? kMost : each * bottoms;
}

template <typename Make>
auto ConvolutionBase::in_precision(const Make& make) const {
  // Depthwise ones wait for memory, not for multiplications, and oneDNN's data gradient in bfloat16 can be far slower.
  if (precision == Precision::kBfloat16 && !depthwise()) {
    auto description = make(Type::bf16);
    // For a few shapes there are only the loops that oneDNN checks its others with.
    if (std::string(description.impl_info_str()).rfind("ref", 0) != 0) return description;
  }
  return make(Type::f32);
}

bool ConvolutionBase::absorb_in_inference(const Layer& next) {
  if (rectifies_) return false;
  const bool folds = window_.axis == 1 && folding_.absorb(next, outputs_, static_cast<int>(narrow_.size()));
  rectifies_ = !folds && rectifies(next);
  return folds || rectifies_;
}

void ConvolutionBase::convolve(const Tensor& wide, Tensor& narrow) {
  const bool folds = fused && folding_.any(), rectify = fused && rectifies_;
  if (folds) folding_.update(params);
  const Tensor& weights = folds ? folding_.weights() : params[0]->data;
  const Tensor* bias = folds ? &folding_.bias() : inner_bias() ? &params[1]->data : nullptr;
  if (winograd_) {
    const bool trained = needs_backward || phase() == Phase::kTrain;
    winograd_->forward(wide.read_as(blocks(wide_)), weights, bias == nullptr ? nullptr : bias->read(), rectify,
                       !trained, narrow.overwrite_as(blocks(narrow_), true));
    return;
  }
  if (fused && !fused_forward_) {
    dnnl::primitive_attr attributes;
    if (rectify) {
      dnnl::post_ops relu;
      relu.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
      attributes.set_post_ops(relu);
    }
    fused_forward_.emplace(forward_description(bias != nullptr, attributes));
  }
  const auto& pd = fused ? fused_forward_->pd : plan();
  if (!fused && !forward_) forward_.emplace(pd);
  std::unordered_map<int, dnnl::memory> arguments = {{DNNL_ARG_WEIGHTS, weights_.get(weights, pd.weights_desc())},
                                                     {DNNL_ARG_SRC, operand(wide, pd.src_desc())},
                                                     {DNNL_ARG_DST, overwrite_memory(narrow, pd.dst_desc())}};
  if (bias != nullptr) arguments[DNNL_ARG_BIAS] = read_memory(*bias, pd.bias_desc());
  execute(fused ? fused_forward_->primitive : *forward_, arguments);
}

void ConvolutionBase::convolve_back(const Tensor& narrow, Tensor& wide) {
  if (winograd_) {
    winograd_->backward(narrow.read_as(blocks(narrow_)), params[0]->data, wide.overwrite_as(blocks(wide_), true));
    return;
  }
  if (!backward_data_) {
    backward_data_.emplace(in_precision([this](Type type) {
      return dnnl::convolution_backward_data::primitive_desc(
          dnnl_engine(), dnnl::algorithm::convolution_direct, values_desc(wide_, Type::f32, type),
          any_desc(weight_dims(), type), values_desc(narrow_, type, type), spatial(window_.stride, 1), gaps(window_),
          spatial(window_.pad, 0), spatial(window_.pad, 0), plan());
    }));
  }
  const auto& pd = backward_data_->pd;
  execute(backward_data_->primitive,
          {{DNNL_ARG_DIFF_DST, operand(narrow, pd.diff_dst_desc())},
           {DNNL_ARG_WEIGHTS, backward_data_weights_.get(params[0]->data, pd.weights_desc())},
           {DNNL_ARG_DIFF_SRC, overwrite_memory(wide, pd.diff_src_desc())}});
}

void ConvolutionBase::add_gradients(const Tensor& wide, const Tensor& narrow) {
  if (winograd_ && param_gradient[0]) {
    Tensor& weights = params[0]->diff;
    const bool fresh = weights.is_zero();
    winograd_->add_gradients(wide.read_as(blocks(wide_)), narrow.read_as(blocks(narrow_)),
                             fresh ? weights.overwrite() : weights.write(), fresh,
                             inner_bias() && param_gradient[1] ? params[1]->diff.write() : nullptr);
    return;
  }
  if (!backward_weights_) {
    backward_weights_.emplace(in_precision([this](Type type) {
      return dnnl::convolution_backward_weights::primitive_desc(
          dnnl_engine(), dnnl::algorithm::convolution_direct, values_desc(wide_, type, type), any_desc(weight_dims()),
          bias_desc(inner_bias()), values_desc(narrow_, type, type), spatial(window_.stride, 1), gaps(window_),
          spatial(window_.pad, 0), spatial(window_.pad, 0), plan());
    }));
    weights_gradient_ = make_memory(backward_weights_->pd.diff_weights_desc());
    if (inner_bias()) bias_gradient_ = make_memory(bias_desc(true));
  }
  const auto& pd = backward_weights_->pd;
  std::unordered_map<int, dnnl::memory> arguments = {{DNNL_ARG_SRC, operand(wide, pd.src_desc())},
                                                     {DNNL_ARG_DIFF_DST, operand(narrow, pd.diff_dst_desc())},
                                                     {DNNL_ARG_DIFF_WEIGHTS, weights_gradient_}};
  if (inner_bias()) arguments[DNNL_ARG_DIFF_BIAS] = bias_gradient_;
  execute(backward_weights_->primitive, arguments);
  if (param_gradient[0]) accumulate(weights_gradient_, params[0]->diff, weight_dims());
  if (inner_bias() && param_gradient[1]) accumulate(bias_gradient_, params[1]->diff, {outputs_});
}

// oneDNN wants one batch axis and at least one spatial one.
Shape ConvolutionBase::folded(const Shape& shape) const {
  Shape dims = {count(shape, 0, window_.axis)};
  dims.insert(dims.end(), shape.begin() + window_.axis, shape.end());
  if (dims.size() == 2) dims.push_back(1);
  return dims;
}

Shape ConvolutionBase::weight_dims() const {
  Shape dims = params[0]->shape();
  if (dims.size() == 2) dims.push_back(1);
  if (groups_ > 1) {
    dims[0] /= groups_;
    dims.insert(dims.begin(), groups_);
  }
  return dims;
}

dnnl::memory ConvolutionBase::operand(const Tensor& tensor, const dnnl::memory::desc& desc) const {
  return desc.get_data_type() == Type::bf16 ? copies->get(tensor, desc) : read_memory(tensor, desc);
}

dnnl::memory::desc ConvolutionBase::values_desc(const Shape& shape, Type type, Type multiplied) const {
  // All that oneDNN has for AMX takes channels last. Depthwise ones follow, or values would be reordered before and
  // after.
  if (multiplied == Type::bf16 || (precision == Precision::kBfloat16 && depthwise())) {
    return channels_last_desc(folded(shape), type);
  }
  constexpr int64_t kBlock = 16;  // channels that oneDNN's blocked layouts keep together
  constexpr int64_t kImage = 4;   // so few channels have kernels of their own
  const auto blocks = [](int64_t channels) { return (channels + kBlock - 1) / kBlock * kBlock; };
  const int64_t a = channels_ / groups_, b = outputs_ / groups_;
  const bool wasteful = std::min(a, b) > kImage && 2 * blocks(a) * blocks(b) > 3 * a * b;
  return wasteful && groups_ == 1 ? channels_last_desc(folded(shape)) : any_desc(folded(shape));
}

std::optional<Winograd::Problem> ConvolutionBase::winograd_problem() const {
  const auto all = [](const Shape& extents, int64_t value) {
    return std::all_of(extents.begin(), extents.end(), [=](int64_t extent) { return extent == value; });
  };
  const bool possible = winograd && precision == Precision::kFloat32 && window_.axes() == 2 &&
                        window_.kernel[0] == window_.kernel[1] && all(window_.stride, 1) && all(window_.dilation, 1);
  if (!possible) return std::nullopt;
  const Shape wide = folded(wide_), narrow = folded(narrow_);
  Winograd::Problem problem;
  problem.images = wide[0];
  problem.groups = groups_;
  problem.channels = wide[1] / groups_;
  problem.outputs = narrow[1] / groups_;
  problem.height = wide[2];
  problem.width = wide[3];
  problem.kernel = window_.kernel[0];
  problem.pad_h = window_.pad[0];
  problem.pad_w = window_.pad[1];
  return problem;
}

LayoutPtr ConvolutionBase::blocks(const Shape& shape) const {
  return layout_of({folded(shape), Type::f32, dnnl::memory::format_tag::nChw16c});
}

dnnl::memory::desc ConvolutionBase::bias_desc(bool wanted) const {
  return wanted ? plain_desc({outputs_}) : dnnl::memory::desc();
}

dnnl::convolution_forward::primitive_desc ConvolutionBase::forward_description(
    bool with_bias, const dnnl::primitive_attr& attributes) const {
  return in_precision([&](Type type) {
    return dnnl::convolution_forward::primitive_desc(
        dnnl_engine(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct,
        values_desc(wide_, type, type), any_desc(weight_dims(), type), bias_desc(with_bias),
        values_desc(narrow_, Type::f32, type), spatial(window_.stride, 1), gaps(window_), spatial(window_.pad, 0),
        spatial(window_.pad, 0), attributes);
  });
}

const dnnl::convolution_forward::primitive_desc& ConvolutionBase::plan() {
  if (!plan_) plan_ = forward_description(inner_bias(), {});
  return *plan_;
}

}  // namespace sparknet
