#include <optional>

#include "core/dnnl_util.h"
#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

namespace {

using Extents = std::vector<int64_t>;

// A setting that has one value for each spatial axis: from the repeated `field` (one value for all axes, or one for
// each; `preset` where there is none) or from `field_h` and `field_w`, which need two spatial axes and exclude the
// former.
Extents per_axis(const Message& param, const std::string& field, const std::string& field_h, const std::string& field_w,
                 int axes, int64_t preset, int64_t least) {
  Extents values;
  const Extents& given = param.integers(field);
  if (!field_h.empty() && (param.has(field_h) || param.has(field_w))) {
    if (!given.empty()) {
      fail(ErrorKind::kField, field, " and ", field_h, "/", field_w, " exclude each other: keep one form");
    }
    if (axes != 2) {
      fail(ErrorKind::kField, field_h, " and ", field_w, " need a bottom with 2 spatial axes, this one has ", axes,
           ": give ", field, " for each axis");
    }
    for (const std::string& name : {field_h, field_w}) {
      if (least > 0 && !param.has(name)) {
        fail(ErrorKind::kField, name, " is missing: ", field_h, " and ", field_w, " go together");
      }
      values.push_back(param.integer(name));
    }
  } else if (given.empty()) {
    values.assign(axes, preset);
  } else if (given.size() == 1) {
    values.assign(axes, given.front());
  } else if (static_cast<int>(given.size()) == axes) {
    values = given;
  } else {
    fail(ErrorKind::kField, field, " has ", given.size(), " values, the bottom ", axes,
         " spatial axes: give one for all or one for each");
  }
  for (const int64_t value : values) {
    if (value < least) fail(ErrorKind::kField, field, " must be at least ", least, ", not ", value);
  }
  return values;
}

}  // namespace

// Convolution (cross-correlation, as everywhere in deep learning) of C channels with num_output filters over any number
// of spatial axes up to three, in `group` groups of channels, plus a bias per filter.
//
// Weights: num_output × C / group × kernel. Top: (size + 2 pad - (dilation (kernel - 1) + 1)) / stride + 1, rounded
// down. `axis` says where the channels are: all axes before it are batch, all after it spatial. Several bottoms of one
// shape are convolved with the same weights into as many tops. `engine` and `force_nd_im2col` chose among Caffe's
// implementations and are without effect.
class ConvolutionLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    const Message& fields = param().message("convolution_param");
    const Shape& shape = bottom[0]->shape();
    axis_ = canonical_axis(shape, fields.integer("axis"));
    const int spatial = static_cast<int>(shape.size()) - axis_ - 1;
    if (spatial > 3) {
      fail(ErrorKind::kShape, "at most 3 spatial axes are possible, the bottom (", to_string(shape), ") has ", spatial,
           " after axis ", axis_);
    }
    if (!fields.has("kernel_h") && !fields.has("kernel_w") && fields.integers("kernel_size").empty() && spatial > 0) {
      fail(ErrorKind::kField, "kernel_size is missing");
    }
    kernel_ = per_axis(fields, "kernel_size", "kernel_h", "kernel_w", spatial, 1, 1);
    stride_ = per_axis(fields, "stride", "stride_h", "stride_w", spatial, 1, 1);
    pad_ = per_axis(fields, "pad", "pad_h", "pad_w", spatial, 0, 0);
    dilation_ = per_axis(fields, "dilation", "", "", spatial, 1, 1);

    channels_ = shape[axis_];
    outputs_ = fields.integer("num_output");
    groups_ = fields.integer("group");
    if (outputs_ < 1) fail(ErrorKind::kField, "num_output must be at least 1");
    if (channels_ < 1) fail(ErrorKind::kShape, "the bottom (", to_string(shape), ") has no channels");
    if (groups_ < 1 || channels_ % groups_ != 0 || outputs_ % groups_ != 0) {
      fail(ErrorKind::kField, "group ", groups_, " must divide both the ", channels_,
           " channels of the bottom and num_output ", outputs_);
    }
    Shape weights = {outputs_, channels_ / groups_};
    weights.insert(weights.end(), kernel_.begin(), kernel_.end());
    add_param(weights, fields.message("weight_filler"));
    bias_ = fields.flag("bias_term");
    if (bias_) add_param({outputs_}, fields.message("bias_filler"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    for (size_t i = 1; i < bottom.size(); ++i) {
      if (bottom[i]->shape() == shape) continue;
      throw Error(
          ErrorKind::kShape,
          join("all bottoms must have one shape: ", to_string(bottom[i]->shape()), " is not ", to_string(shape)),
          static_cast<int>(i));
    }
    if (static_cast<int>(shape.size()) != axis_ + 1 + static_cast<int>(kernel_.size())) {
      fail(ErrorKind::kShape, "the bottom must keep its ", axis_ + 1 + kernel_.size(), " axes, it has now ",
           to_string(shape));
    }
    if (shape[axis_] != channels_) {
      fail(ErrorKind::kShape, "the weights are for ", channels_, " channels, the bottom (", to_string(shape), ") has ",
           shape[axis_]);
    }
    Shape output(shape.begin(), shape.begin() + axis_);
    output.push_back(outputs_);
    Shape window, padded;
    for (size_t i = 0; i < kernel_.size(); ++i) {
      window.push_back(dilation_[i] * (kernel_[i] - 1) + 1);
      padded.push_back(shape[axis_ + 1 + i] + 2 * pad_[i]);
      output.push_back((padded[i] - window[i]) / stride_[i] + 1);
    }
    for (size_t i = 0; i < kernel_.size(); ++i) {
      if (window[i] > padded[i]) {
        fail(ErrorKind::kShape, "kernel ", to_string(kernel_),
             window == kernel_ ? "" : join(" (dilated ", to_string(window), ")"), " is larger than the padded input ",
             to_string(padded));
      }
    }
    for (Blob* blob : top) blob->reshape(output);
    if (shape != shape_) {
      shape_ = shape;
      forward_.reset();
      backward_data_.reset();
      backward_weights_.reset();
    }
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (top[0]->count() == 0) return;
    if (!forward_) make_forward(top[0]->shape());
    const auto& pd = forward_->pd;
    std::unordered_map<int, dnnl::memory> arguments = {
        {DNNL_ARG_WEIGHTS, weights_.get(params[0]->data, pd.weights_desc())}};
    if (bias_) arguments[DNNL_ARG_BIAS] = read_memory(params[1]->data, pd.bias_desc());
    for (size_t i = 0; i < bottom.size(); ++i) {
      arguments[DNNL_ARG_SRC] = read_memory(bottom[i]->data, pd.src_desc());
      arguments[DNNL_ARG_DST] = overwrite_memory(top[i]->data, pd.dst_desc());
      execute(forward_->primitive, arguments);
    }
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (top[0]->count() == 0) return;
    if (!forward_) make_forward(top[0]->shape());
    const bool weights_wanted = param_gradient[0] || (bias_ && param_gradient[1]);
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (weights_wanted) backward_weights(*top[i], *bottom[i]);
      if (propagate_down[i]) backward_data(*top[i], *bottom[i]);
    }
  }

  int64_t multiply_adds(const Blobs& bottom, const Blobs& top) const override {
    return static_cast<int64_t>(bottom.size()) * top[0]->count() * (params[0]->count() / outputs_);
  }

 private:
  template <typename Primitive>
  struct Pass {
    typename Primitive::primitive_desc pd;
    Primitive primitive;
    explicit Pass(typename Primitive::primitive_desc description) : pd(std::move(description)), primitive(pd) {}
  };

  // oneDNN wants one batch axis and at least one spatial one.
  Shape folded(const Shape& shape) const {
    Shape dims = {sparknet::count(shape, 0, axis_)};
    dims.insert(dims.end(), shape.begin() + axis_, shape.end());
    if (dims.size() == 2) dims.push_back(1);
    return dims;
  }

  Extents spatial(const Extents& values, int64_t without_axes) const {
    return values.empty() ? Extents{without_axes} : values;
  }

  // oneDNN counts the elements left out between two of the kernel.
  Extents gaps() const {
    Extents gaps = spatial(dilation_, 1);
    for (int64_t& gap : gaps) --gap;
    return gaps;
  }

  Shape weight_dims() const {
    Shape dims = params[0]->shape();
    if (dims.size() == 2) dims.push_back(1);
    if (groups_ > 1) {
      dims[0] /= groups_;
      dims.insert(dims.begin(), groups_);
    }
    return dims;
  }

  dnnl::memory::desc bias_desc() const { return bias_ ? plain_desc({outputs_}) : dnnl::memory::desc(); }

  void make_forward(const Shape& output) {
    source_ = any_desc(folded(shape_));
    destination_ = any_desc(folded(output));
    forward_.emplace(dnnl::convolution_forward::primitive_desc(
        dnnl_engine(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, source_,
        any_desc(weight_dims()), bias_desc(), destination_, spatial(stride_, 1), gaps(), spatial(pad_, 0),
        spatial(pad_, 0)));
  }

  void backward_data(Blob& top, Blob& bottom) {
    if (!backward_data_) {
      backward_data_.emplace(dnnl::convolution_backward_data::primitive_desc(
          dnnl_engine(), dnnl::algorithm::convolution_direct, source_, any_desc(weight_dims()), destination_,
          spatial(stride_, 1), gaps(), spatial(pad_, 0), spatial(pad_, 0), forward_->pd));
    }
    const auto& pd = backward_data_->pd;
    execute(backward_data_->primitive,
            {{DNNL_ARG_DIFF_DST, read_memory(top.diff, pd.diff_dst_desc())},
             {DNNL_ARG_WEIGHTS, backward_data_weights_.get(params[0]->data, pd.weights_desc())},
             {DNNL_ARG_DIFF_SRC, overwrite_memory(bottom.diff, pd.diff_src_desc())}});
  }

  void backward_weights(Blob& top, Blob& bottom) {
    if (!backward_weights_) {
      backward_weights_.emplace(dnnl::convolution_backward_weights::primitive_desc(
          dnnl_engine(), dnnl::algorithm::convolution_direct, source_, any_desc(weight_dims()), bias_desc(),
          destination_, spatial(stride_, 1), gaps(), spatial(pad_, 0), spatial(pad_, 0), forward_->pd));
      weights_gradient_ = make_memory(backward_weights_->pd.diff_weights_desc());
      if (bias_) bias_gradient_ = make_memory(bias_desc());
    }
    const auto& pd = backward_weights_->pd;
    std::unordered_map<int, dnnl::memory> arguments = {{DNNL_ARG_SRC, read_memory(bottom.data, pd.src_desc())},
                                                       {DNNL_ARG_DIFF_DST, read_memory(top.diff, pd.diff_dst_desc())},
                                                       {DNNL_ARG_DIFF_WEIGHTS, weights_gradient_}};
    if (bias_) arguments[DNNL_ARG_DIFF_BIAS] = bias_gradient_;
    execute(backward_weights_->primitive, arguments);
    if (param_gradient[0]) accumulate(weights_gradient_, params[0]->diff, weight_dims());
    if (bias_ && param_gradient[1]) accumulate(bias_gradient_, params[1]->diff, {outputs_});
  }

  int axis_ = 1;
  int64_t channels_ = 0, outputs_ = 0, groups_ = 1;
  bool bias_ = true;
  Extents kernel_, stride_, pad_, dilation_;
  Shape shape_;  // of the bottoms that the primitives are for

  dnnl::memory::desc source_, destination_;
  std::optional<Pass<dnnl::convolution_forward>> forward_;
  std::optional<Pass<dnnl::convolution_backward_data>> backward_data_;
  std::optional<Pass<dnnl::convolution_backward_weights>> backward_weights_;
  Converted weights_, backward_data_weights_;
  dnnl::memory weights_gradient_, bias_gradient_;
};

REGISTER_LAYER(ConvolutionLayer, LayerSpec("Convolution", "convolution with learned filters, plus a bias")
                                     .messages({"convolution_param"})
                                     .positional({"num_output", "kernel_size"})
                                     .bottoms(1, LayerSpec::kAny)
                                     .tops(1, LayerSpec::kAny)
                                     .same_tops()
                                     .reads_bottom()
                                     .most(2));

}  // namespace sparknet
