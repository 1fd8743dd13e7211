#include <algorithm>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"

namespace sparknet {

// Channels of the groups take turns (Zhang et al., "ShuffleNet: An extremely efficient convolutional neural network for
// mobile devices", CVPR 2018): of `group` groups of n channels, channel j * group + i of the top is channel j of group
// i.
class ShuffleChannelLayer : public Layer {
 public:
  using Layer::Layer;

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.size() < 2) fail(ErrorKind::kShape, "the bottom must have a channel axis, but it is ", to_string(shape));
    group_ = param().message("shuffle_channel_param").integer("group");
    if (group_ < 1 || shape[1] % group_ != 0) {
      fail(ErrorKind::kField, "group ", group_, " must divide the ", shape[1], " channels of the bottom");
    }
    top[0]->reshape(shape);
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    move(bottom[0]->shape(), bottom[0]->data.read(), top[0]->data.overwrite(), group_);
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    // As many groups as there were channels in each undo it.
    const int64_t channels = bottom[0]->shape()[1];
    if (propagate_down[0]) {
      move(bottom[0]->shape(), top[0]->diff.read(), bottom[0]->diff.overwrite(), channels / group_);
    }
  }

 private:
  static void move(const Shape& shape, const float* from, float* to, int64_t groups) {
    const int64_t channels = shape[1], floats = count(shape, 2, static_cast<int>(shape.size()));
    const int64_t own = groups == 0 ? 0 : channels / groups;
    parallel_for(shape[0] * channels, std::max<int64_t>(kElementGrain / std::max<int64_t>(floats, 1), 1),
                 [=](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     const int64_t c = i % channels, source = i - c + c % groups * own + c / groups;
                     std::copy_n(from + source * floats, floats, to + i * floats);
                   }
                 });
  }

  int64_t group_ = 1;
};

REGISTER_LAYER(ShuffleChannelLayer, LayerSpec("ShuffleChannel", "channels of the groups in turns")
                                        .messages({"shuffle_channel_param"})
                                        .positional({"group"}));

}  // namespace sparknet
