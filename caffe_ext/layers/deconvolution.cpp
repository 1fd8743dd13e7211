#include "core/channels.h"
#include "core/convolution.h"

namespace sparknet {

// The transpose of Convolution ("fractionally strided"): each value of the C channels is spread over the top through
// num_output filters, overlaps are summed, and a bias per filter added. What goes forward here goes backward there.
//
// Weights: C × num_output / group × kernel. Top: stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad. Other settings
// as for Convolution.
class DeconvolutionLayer : public ConvolutionBase {
 public:
  DeconvolutionLayer(const Message& param, Phase phase) : ConvolutionBase(param, phase, true) {}

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (top[0]->count() == 0) return;
    for (size_t i = 0; i < bottom.size(); ++i) {
      convolve_back(bottom[i]->data, top[i]->data);
      if (has_bias()) add_bias(top[i]->data);
    }
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (top[0]->count() == 0) return;
    for (size_t i = 0; i < bottom.size(); ++i) {
      const Tensor& dy = top[i]->diff;
      if (has_bias() && param_gradient[1]) add_bias_gradient(dy);
      if (param_gradient[0]) add_gradients(dy, bottom[i]->data);
      if (propagate_down[i]) convolve(dy, bottom[i]->diff);
    }
  }

 private:
  void add_bias(Tensor& output) const {
    const ChannelView view = ChannelView::of_axis(output, window().axis);
    const std::vector<float> bias = padded_channels(view, params[1]->data.read(), params[1]->count());
    const float* from = output.read_as(view.layout);
    float* to = output.overwrite_as(view.layout);
    for_each_value(view, [=, b = bias.data()](int64_t at, int64_t channel) { to[at] = from[at] + b[channel]; });
  }

  void add_bias_gradient(const Tensor& dy) const {
    const ChannelView view = ChannelView::of_axis(dy, window().axis);
    const float* from = dy.read_as(view.layout);
    const std::vector<float> sums = channel_sums(view, [=](int64_t at, int64_t) { return from[at]; });
    float* to = params[1]->diff.write();
    for (int64_t i = 0; i < params[1]->count(); ++i) to[i] += sums[i];
  }
};

REGISTER_LAYER(DeconvolutionLayer, convolution_spec("Deconvolution", "the transpose of a convolution, plus a bias"));

}  // namespace sparknet
