#include <algorithm>
#include <map>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// Chooses the roi_per_img regions of each image with the largest losses (Shrivastava et al., "Training region-based
// object detectors with online hard example mining", CVPR 2016), as R-FCN's fork of Caffe does
// (github.com/daijifeng001/caffe-rfcn): their labels and box weights are passed on, the others' become ignore_label and
// 0. Of equal losses the first counts as larger; the fork leaves that open.
//
// Bottoms: regions R × 5 (image first), the loss of each, the label of each, box weights R × C. No gradient.
class BoxAnnotatorOHEMLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& fields = param().message("box_annotator_ohem_param");
    keep_ = fields.integer("roi_per_img");
    if (keep_ < 1) fail(ErrorKind::kField, "roi_per_img must be at least 1");
    ignored_ = static_cast<float>(fields.integer("ignore_label"));
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    for (int i = 0; i < 4; ++i) {
      const Shape& shape = bottom[i]->shape();
      const int64_t rows = bottom[0]->shape().empty() ? -1 : bottom[0]->shape()[0];
      const int64_t wanted = i == 0 ? 5 : 1;  // values of a row; of box weights any number
      if (!shape.empty() && shape[0] == rows && (i == 3 || bottom[i]->count() == rows * wanted)) continue;
      throw Error(ErrorKind::kShape,
                  join("regions R × 5, R losses, R labels and box weights R × C are needed, but `", bottom[i]->name,
                       "` is ", to_string(shape), " and `", bottom[0]->name, "` is ", to_string(bottom[0]->shape())),
                  i);
    }
    for (int i = 0; i < 2; ++i) {
      Shape shape = bottom[i + 2]->shape();
      if (shape.size() < 4) shape.resize(4, 1);
      top[i]->reshape(shape);
    }
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const int64_t rows = bottom[0]->shape()[0], boxes = rows == 0 ? 0 : bottom[3]->count() / rows;
    const float *regions = bottom[0]->data.read(), *losses = bottom[1]->data.read();
    const float *labels = bottom[2]->data.read(), *weights = bottom[3]->data.read();
    std::vector<int64_t> order(rows);
    std::iota(order.begin(), order.end(), 0);
    for (int64_t i = 0; i < rows; ++i) {
      if (losses[i] == losses[i]) continue;
      throw Error(ErrorKind::kData, join("the loss of region ", i, " is not a number"), 1);
    }
    std::stable_sort(order.begin(), order.end(), [=](int64_t a, int64_t b) { return losses[a] > losses[b]; });

    float* chosen_labels = top[0]->data.overwrite();
    float* chosen_weights = top[1]->data.overwrite();
    std::fill_n(chosen_labels, rows, ignored_);
    std::fill_n(chosen_weights, rows * boxes, 0.0f);
    std::map<float, int64_t> taken;  // by image
    for (const int64_t row : order) {
      if (taken[regions[row * 5]]++ >= keep_) continue;
      chosen_labels[row] = labels[row];
      std::copy_n(weights + row * boxes, boxes, chosen_weights + row * boxes);
    }
  }

  void backward(const Blobs&, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    for (int i = 0; i < 4; ++i) {
      if (!propagate_down[i]) continue;
      throw Error(
          ErrorKind::kState,
          join("BoxAnnotatorOHEM has no gradient, but a loss, a loss_weight or force_backward asks for one (of ", "`",
               bottom[i]->name, "`); write propagate_down: false four times into the layer or drop ", "force_backward"),
          i);
    }
  }

 private:
  int64_t keep_ = 0;
  float ignored_ = -1.0f;
};

REGISTER_LAYER(BoxAnnotatorOHEMLayer,
               LayerSpec("BoxAnnotatorOHEM", "labels and weights of the regions that are hardest")
                   .messages({"box_annotator_ohem_param"})
                   .positional({"roi_per_img"})
                   .named({"regions", "losses", "labels", "box weights"})
                   .bottoms(4, 4)
                   .tops(2, 2));

}  // namespace sparknet
