#include <algorithm>
#include <cfloat>
#include <vector>

#include "core/boxes.h"
#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

// What SSD has found (Liu et al., "SSD: Single shot multibox detector", ECCV 2016; github.com/weiliu89/caffe): offsets,
// scores and prior boxes (shapes: core/boxes.h) become rows (image, class, score, xmin, ymin, xmax, ymax), top 1 × 1 ×
// rows × 7, by image, class and falling score. Of each class but the background the boxes that score above
// confidence_threshold, at most nms_param.top_k of them, lose those that overlap a better one by more than
// nms_param.nms_threshold; then at most keep_top_k stay of an image.
//
// If nothing is found in the whole batch there is a row (image, -1, -1, -1, -1, -1, -1) for each image. Until the first
// forward pass the top has one row. Rows are not written to files or drawn here: such settings are refused.
class DetectionOutputLayer : public Layer {
 public:
  DetectionOutputLayer(const Message& param, Phase phase)
      : Layer(param, phase), code_(fields(), "variance_encoded_in_target") {}

  void setup(const Blobs&, const Blobs&) override {
    if (!fields().has("num_classes")) fail(ErrorKind::kField, "num_classes is missing");
    const Message& nms = fields().message("nms_param");
    threshold_ = static_cast<float>(nms.real("nms_threshold"));
    eta_ = static_cast<float>(nms.real("eta"));
    most_ = nms.has("top_k") ? nms.integer("top_k") : -1;
    keep_ = fields().integer("keep_top_k");
    background_ = fields().integer("background_label_id");
    least_ =
        fields().has("confidence_threshold") ? static_cast<float>(fields().real("confidence_threshold")) : -FLT_MAX;
    if (!(threshold_ >= 0.0f)) fail(ErrorKind::kField, "nms_threshold must not be below 0, not ", threshold_);
    if (!(eta_ > 0.0f && eta_ <= 1.0f)) fail(ErrorKind::kField, "eta must be above 0 and at most 1, not ", eta_);
    if (!fields().message("save_output_param").text("output_directory").empty()) {
      fail(ErrorKind::kField, "save_output_param.output_directory: detections are not written to files here; leave it ",
           "away and take them from the top");
    }
    if (fields().flag("visualize")) {
      fail(ErrorKind::kField, "visualize: detections are not drawn here; leave it away and take them from the top");
    }
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    shapes_ = check_box_shapes(bottom, fields());
    top[0]->reshape({1, 1, std::max<int64_t>(rows_, 1), 7});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const std::vector<Prior> priors = read_priors(*bottom[2]);
    std::vector<Found> found;
    for (int64_t image = 0; image < shapes_.images; ++image) {
      const std::vector<Found> own = detect(bottom, priors, image);
      found.insert(found.end(), own.begin(), own.end());
    }
    const bool none = found.empty();
    for (int64_t image = 0; none && image < shapes_.images; ++image) {
      found.push_back({image, -1, -1.0f, {-1.0f, -1.0f, -1.0f, -1.0f}});
    }
    rows_ = static_cast<int64_t>(found.size());
    top[0]->reshape({1, 1, rows_, 7});
    float* to = top[0]->data.overwrite();
    for (const Found& one : found) {
      for (const float value : {static_cast<float>(one.image), static_cast<float>(one.label), one.score, one.box.xmin,
                                one.box.ymin, one.box.xmax, one.box.ymax}) {
        *to++ = value;
      }
    }
  }

  void backward(const Blobs&, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    for (int i = 0; i < 3; ++i) {
      if (!propagate_down[i]) continue;
      throw Error(ErrorKind::kState,
                  join("DetectionOutput has no gradient, but a loss_weight or force_backward asks for one (of `",
                       bottom[i]->name, "`); restrict the layer to TEST with include { phase: TEST }"),
                  i);
    }
  }

 private:
  struct Found {
    int64_t image, label;
    float score;
    Box box;
  };

  const Message& fields() const { return param().message("detection_output_param"); }

  // Of one image, by class and falling score.
  std::vector<Found> detect(const Blobs& bottom, const std::vector<Prior>& priors, int64_t image) const {
    const int64_t classes = shapes_.classes, located = shapes_.location_classes;
    const float* offsets = bottom[0]->data.read() + image * shapes_.priors * located * 4;
    const float* all_scores = bottom[1]->data.read() + image * shapes_.priors * classes;
    std::vector<Found> found;
    std::vector<Box> boxes(priors.size());
    std::vector<float> scores(priors.size());
    for (int64_t label = 0; label < classes; ++label) {
      if (label == background_) continue;
      for (size_t i = 0; i < priors.size(); ++i) {
        scores[i] = all_scores[static_cast<int64_t>(i) * classes + label];
        const int64_t at = static_cast<int64_t>(i) * located + (located == 1 ? 0 : label);
        // What scores too little is not looked at.
        if (scores[i] > least_) boxes[i] = code_.decode(offsets + at * 4, priors[i]);
      }
      for (const int64_t i : suppress(boxes, scores, least_, threshold_, eta_, most_)) {
        found.push_back({image, label, scores[i], boxes[i]});
      }
    }
    if (keep_ >= 0 && static_cast<int64_t>(found.size()) > keep_) {
      std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.score > b.score; });
      found.resize(keep_);
      std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.label < b.label; });
    }
    return found;
  }

  const BoxCode code_;
  float threshold_ = 0.3f, eta_ = 1.0f, least_ = -FLT_MAX;
  int64_t most_ = -1, keep_ = -1, background_ = 0;
  BoxShapes shapes_{};
  int64_t rows_ = 0;  // of the last forward pass
};

REGISTER_LAYER(DetectionOutputLayer, LayerSpec("DetectionOutput", "boxes and their classes from offsets and scores")
                                         .messages({"detection_output_param"})
                                         .positional({"num_classes"})
                                         .bottoms(3, 3)
                                         .named({"locations", "scores", "prior boxes"}));

}  // namespace sparknet
