#include "core/convolution.h"

#include "core/error.h"

namespace sparknet {

// Convolution (cross-correlation, as everywhere in deep learning) of C channels with num_output filters over any number
// of spatial axes up to three, in `group` groups of channels, plus a bias per filter.
//
// Weights: num_output × C / group × kernel. Top: (size + 2 pad - (dilation (kernel - 1) + 1)) / stride + 1, rounded
// down. `axis` says where the channels are: all axes before it are batch, all after it spatial. Several bottoms of one
// shape are convolved with the same weights into as many tops. `engine` and `force_nd_im2col` chose among Caffe's
// implementations and are without effect.
class ConvolutionLayer : public ConvolutionBase {
 public:
  ConvolutionLayer(const Message& param, Phase phase) : ConvolutionBase(param, phase, false) {}

  // In nets that are not trained only: oneDNN's ReLU makes 0 of NaN, and a loss that ought to be NaN has to stay it.
  Absorbs absorb(const Layer& next) override {
    const bool trained = needs_backward || phase() == Phase::kTrain;
    return !trained && absorb_in_inference(next) ? Absorbs::kForward : Absorbs::kNothing;
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (top[0]->count() == 0) return;
    for (size_t i = 0; i < bottom.size(); ++i) convolve(bottom[i]->data, top[i]->data);
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (top[0]->count() == 0) return;
    const bool params_wanted = param_gradient[0] || (has_bias() && param_gradient[1]);
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (params_wanted) add_gradients(bottom[i]->data, top[i]->diff);
      if (propagate_down[i]) convolve_back(top[i]->diff, bottom[i]->diff);
    }
  }
};

// Convolution of each channel by itself, under the names of two implementations. ConvolutionDepthwise (pull request
// 5665 of BVLC Caffe) takes neither num_output nor group, though its files may give them: both are the bottom's
// channels.
class ConvolutionDepthwiseLayer : public ConvolutionLayer {
 public:
  using ConvolutionLayer::ConvolutionLayer;

 protected:
  Channels channels_of(const Message& fields, int64_t bottom_channels) const override {
    for (const char* field : {"num_output", "group"}) {
      if (fields.has(field) && fields.integer(field) != bottom_channels) {
        fail(ErrorKind::kField, field, " must be the number of channels of the bottom, ", bottom_channels, ", not ",
             fields.integer(field), "; it may be left away");
      }
    }
    return {bottom_channels, bottom_channels};
  }
};

// DepthwiseConvolution (github.com/yonghenglh6/DepthwiseConvolution) is Convolution with a kernel for GPUs that takes
// `group` to be the number of channels; its published models say so. Where `group` is another number, CPU and GPU
// disagree there.
class DepthwiseConvolutionLayer : public ConvolutionLayer {
 public:
  using ConvolutionLayer::ConvolutionLayer;

 protected:
  Channels channels_of(const Message& fields, int64_t bottom_channels) const override {
    if (fields.integer("group") != bottom_channels) {
      fail(ErrorKind::kField, "group must be the number of channels of the bottom, ", bottom_channels, ", not ",
           fields.integer("group"));
    }
    return ConvolutionLayer::channels_of(fields, bottom_channels);
  }
};

REGISTER_LAYER(ConvolutionLayer, convolution_spec("Convolution", "convolution with learned filters, plus a bias"));
REGISTER_LAYER(ConvolutionDepthwiseLayer,
               convolution_spec("ConvolutionDepthwise", "convolution of each channel by itself, plus a bias")
                   .positional({"kernel_size"}));
REGISTER_LAYER(DepthwiseConvolutionLayer,
               convolution_spec("DepthwiseConvolution", "convolution of each channel by itself (group: its channels)"));

}  // namespace sparknet
