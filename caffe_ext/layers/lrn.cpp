#include <optional>

#include "core/dnnl_util.h"
#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// Local response normalisation (Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
// neural networks", NIPS 2012): y = x (k + alpha / n * sum of the squares in a window of n values around x) ^ -beta.
//
// ACROSS_CHANNELS: the window is local_size channels at one place, n = local_size. WITHIN_CHANNEL: it is local_size ×
// local_size places of one channel, n = local_size^2, zeros outside the image counted; there Caffe ignores `k` and
// takes 1.
class LRNLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& fields = param().message("lrn_param");
    local_size_ = fields.integer("local_size");
    if (local_size_ % 2 == 0) fail(ErrorKind::kField, "local_size must be odd, not ", local_size_);
    within_ = fields.text("norm_region") == "WITHIN_CHANNEL";
    alpha_ = static_cast<float>(fields.real("alpha"));
    beta_ = static_cast<float>(fields.real("beta"));
    k_ = within_ ? 1.0f : static_cast<float>(fields.real("k"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.size() != 4) {
      fail(ErrorKind::kShape, "the bottom must have 4 axes (N × C × H × W), not ", to_string(shape));
    }
    top[0]->reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (top[0]->count() == 0) return;
    const auto source = native_desc(bottom[0]->data);
    if (!forward_pd_ || forward_pd_->src_desc() != source) make_primitives(source);
    std::unordered_map<int, dnnl::memory> arguments = {{DNNL_ARG_SRC, read_memory(bottom[0]->data, source)},
                                                       {DNNL_ARG_DST, overwrite_memory(top[0]->data, source)}};
    add_workspace(arguments);
    execute(forward_, arguments);
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0] || top[0]->count() == 0) return;
    if (!forward_pd_) fail(ErrorKind::kState, "backward needs a forward pass before it");
    const auto source = forward_pd_->src_desc();
    std::unordered_map<int, dnnl::memory> arguments = {{DNNL_ARG_SRC, read_memory(bottom[0]->data, source)},
                                                       {DNNL_ARG_DIFF_DST, read_memory(top[0]->diff, source)},
                                                       {DNNL_ARG_DIFF_SRC, overwrite_memory(bottom[0]->diff, source)}};
    add_workspace(arguments);
    execute(backward_, arguments);
  }

  void forget() override { workspace_.drop(); }

 private:
  void make_primitives(const dnnl::memory::desc& desc) {
    const auto algorithm = within_ ? dnnl::algorithm::lrn_within_channel : dnnl::algorithm::lrn_across_channels;
    forward_pd_.emplace(dnnl_engine(), dnnl::prop_kind::forward_training, algorithm, desc, desc, local_size_, alpha_,
                        beta_, k_);
    forward_ = dnnl::lrn_forward(*forward_pd_);
    backward_ = dnnl::lrn_backward(dnnl::lrn_backward::primitive_desc(dnnl_engine(), algorithm, desc, desc, desc,
                                                                      local_size_, alpha_, beta_, k_, *forward_pd_));
  }

  // For some layouts there is none.
  void add_workspace(std::unordered_map<int, dnnl::memory>& arguments) {
    const auto desc = forward_pd_->workspace_desc();
    if (desc.get_size() > 0) arguments[DNNL_ARG_WORKSPACE] = workspace_.get(desc);
  }

  int64_t local_size_ = 5;
  bool within_ = false;
  float alpha_ = 1.0f, beta_ = 0.75f, k_ = 1.0f;

  std::optional<dnnl::lrn_forward::primitive_desc> forward_pd_;
  dnnl::lrn_forward forward_;
  dnnl::lrn_backward backward_;
  Workspace workspace_;
};

REGISTER_LAYER(LRNLayer, LayerSpec("LRN", "local response normalisation, across channels or within each")
                             .messages({"lrn_param"})
                             .positional({"local_size", "alpha", "beta"})
                             .reads_bottom()
                             .reads_top());

}  // namespace sparknet
