#include "core/dropout.h"

#include "core/elementwise.h"

namespace sparknet {

// In TRAIN each element is 0 with probability dropout_ratio, else divided by 1 - dropout_ratio; in TEST y = x
// (Srivastava et al., "Dropout", JMLR 2014). With scale_train: false (Fast R-CNN's fork of Caffe) nothing is divided in
// TRAIN, and in TEST everything multiplied by 1 - dropout_ratio.
class DropoutLayer : public ElementwiseLayer {
 public:
  using ElementwiseLayer::ElementwiseLayer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& fields = param().message("dropout_param");
    ratio_ = read_dropout_ratio(fields);
    const auto kept = static_cast<float>(1.0 - ratio_);
    const bool scale_train = fields.flag("scale_train");
    factor_ = phase() == Phase::kTest ? (scale_train ? 1.0f : kept) : (scale_train ? 1.0f / kept : 1.0f);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    key_ = random_key;
    if (passes_on(top, bottom)) return;
    const NativeView x = bottom[0]->data.native();
    layout_ = x.layout;
    pass(x, top[0]->data);
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0] || passes_on(top, bottom)) return;
    // In TRAIN the layout must be the forward pass's: the mask belongs to places in memory.
    if (phase() == Phase::kTest) layout_ = top[0]->diff.layout();
    const float* dy = top[0]->diff.read_as(layout_);
    bottom[0]->diff.overwrite_as(layout_);
    pass({dy, bottom[0]->diff.native().count, layout_}, bottom[0]->diff);
  }

 private:
  bool passes_on(const Blobs& top, const Blobs& bottom) const {
    return top[0] == bottom[0] && phase() == Phase::kTest && factor_ == 1.0f;
  }

  void pass(const NativeView& from, Tensor& tensor) const {
    if (phase() == Phase::kTest) {
      map(from, tensor, [factor = factor_](float value) { return factor * value; });
      return;
    }
    float* to = tensor.overwrite_as(from.layout);
    draw_dropout(key_, ratio_, from.count, [&, x = from.values, factor = factor_](int64_t i, bool stays) {
      to[i] = stays ? x[i] * factor : 0.0f;
    });
  }

  double ratio_ = 0.0;
  float factor_ = 1.0f;  // of what stays
  uint64_t key_ = 0;
  LayoutPtr layout_;
};

REGISTER_LAYER(DropoutLayer, LayerSpec("Dropout", "zeroes elements at random while training, scales the others up")
                                 .messages({"dropout_param"})
                                 .positional({"dropout_ratio"})
                                 .extensions({"scale_train"})
                                 .in_place());

}  // namespace sparknet
