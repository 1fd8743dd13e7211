#include "core/convolution.h"

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

REGISTER_LAYER(ConvolutionLayer, LayerSpec("Convolution", "convolution with learned filters, plus a bias")
                                     .messages({"convolution_param"})
                                     .positional({"num_output", "kernel_size"})
                                     .bottoms(1, LayerSpec::kAny)
                                     .tops(1, LayerSpec::kAny)
                                     .same_tops()
                                     .reads_bottom()
                                     .most(2));

}  // namespace sparknet
