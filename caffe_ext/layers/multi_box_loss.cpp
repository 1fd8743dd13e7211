#include <algorithm>
#include <cfloat>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core/boxes.h"
#include "core/loss.h"
#include "core/smooth_l1.h"

namespace sparknet {

// The loss of SSD (Liu et al., "SSD: Single shot multibox detector", ECCV 2016; github.com/weiliu89/caffe): offsets,
// scores and prior boxes (shapes: core/boxes.h) against true boxes, rows (image, class, -, xmin, ymin, xmax, ymax,
// difficult), 1 × 1 × G × 8; image -1: none.
//
// Boxes (the prior ones, or with use_prior_for_matching: false the predicted ones) are matched with the true boxes of
// their image (match() in core/boxes.h). The loss is loc_weight times that of the matched boxes' offsets (smooth L1, or
// half the squares), plus that of classes (softmax, or a logistic one for each class, where the background is a class
// like others), divided by the number of matches, at least 1, or as loss_param says with VALID meaning that. Which
// boxes' classes count is mining_type's choice:
//   NONE          all
//   MAX_NEGATIVE  matched ones, and of those that overlap no truth by neg_overlap the ones with the largest loss,
//                 neg_pos_ratio times as many as matches
//   HARD_EXAMPLE  the sample_size with the largest loss of offsets and classes
// Both leave images without truth out, as that fork does, and need share_location. Matches and choices are taken as
// given where gradients are computed. Removing overlapping boxes before the choice (nms_param) is refused.
class MultiBoxLossLayer : public Layer {
 public:
  MultiBoxLossLayer(const Message& param, Phase phase)
      : Layer(param, phase), code_(fields(), "encode_variance_in_target"), rule_(param, "VALID") {}

  void setup(const Blobs&, const Blobs&) override {
    if (!fields().has("num_classes")) fail(ErrorKind::kField, "num_classes is missing");
    mining_ = fields().text("mining_type");
    if (fields().has("do_neg_mining") && fields().flag("do_neg_mining") != (mining_ != "NONE")) {
      fail(ErrorKind::kField, "do_neg_mining contradicts mining_type ", mining_,
           ", which takes its place: leave it away");
    }
    if (mining_ != "NONE" && !fields().flag("share_location")) {
      fail(ErrorKind::kField, "mining_type ", mining_, " needs share_location: true");
    }
    if (fields().has("nms_param")) fail(ErrorKind::kField, "nms_param is not known here: leave it away");
    if (mining_ == "MAX_NEGATIVE" && !(fields().real("neg_pos_ratio") > 0.0)) {
      fail(ErrorKind::kField, "neg_pos_ratio must be above 0");
    }
    if (mining_ == "HARD_EXAMPLE" && fields().integer("sample_size") < 1) {
      fail(ErrorKind::kField, "sample_size must be at least 1");
    }
    background_ = fields().integer("background_label_id");
    softmax_ = fields().text("conf_loss_type") == "SOFTMAX";
    const int64_t classes = fields().integer("num_classes");
    if (softmax_ && background_ >= classes) {
      fail(ErrorKind::kField, "background_label_id ", background_, " is not one of the ", classes, " classes");
    }
    if (fields().flag("map_object_to_agnostic") && classes != background_ + 2) {
      fail(ErrorKind::kField, "map_object_to_agnostic needs num_classes 2 and background_label_id 0");
    }
    // As in the fork, a part of the loss that may not propagate down does not count.
    const auto& asked = param().integers("propagate_down");
    for (int i = 0; i < 2; ++i) counts_[i] = asked.empty() || asked[i] != 0;
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    shapes_ = check_box_shapes(bottom, fields());
    const Shape& truth = bottom[3]->shape();
    if (truth.empty() || truth.back() != 8) {
      throw Error(ErrorKind::kShape,
                  join("`", bottom[3]->name, "` must be rows of 8 numbers, 1 × 1 × G × 8, not ", to_string(truth)), 3);
    }
    top[0]->reshape({});
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const std::vector<Prior> priors = read_priors(*bottom[2]);
    read_truths(*bottom[3]);
    located_ = bottom[0]->shape();
    scored_ = bottom[1]->shape();
    offsets_.clear();
    items_.clear();
    matches_ = 0;
    double location = 0.0, confidence = 0.0;
    for (int64_t image = 0; image < shapes_.images; ++image) {
      std::vector<Located> located = locate(bottom, priors, image);
      classify(bottom, image, located);
      matches_ += static_cast<int64_t>(located.size());
      for (const Located& one : located) {
        for (int k = 0; k < 4; ++k) location += location_loss(one.error[k]);
      }
      offsets_.insert(offsets_.end(), located.begin(), located.end());
    }
    const float* scores = bottom[1]->data.read();
    for (const Item& item : items_) confidence += confidence_loss(scores + item.at, item);
    double loss = 0.0;
    if (counts_[0]) loss += fields().real("loc_weight") * location;
    if (counts_[1]) loss += confidence;
    *top[0]->data.overwrite() = static_cast<float>(loss / normalizer());
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    // As in the fork boxes and truth have none, which needs not be written down.
    for (const int i : {2, 3}) {
      if (propagate_down[i]) bottom[i]->diff.zero();
    }
    if (bottom[0]->shape() != located_ || bottom[1]->shape() != scored_) {
      fail(ErrorKind::kState, "backward needs a forward pass before it");
    }
    const double weight = *top[0]->diff.read() / normalizer();
    if (propagate_down[0]) {
      bottom[0]->diff.zero();
      float* d = bottom[0]->diff.write();
      const double factor = weight * fields().real("loc_weight");
      for (const Located& one : offsets_) {
        for (int k = 0; k < 4; ++k) {
          d[one.at + k] += static_cast<float>(factor * location_slope(one.error[k]) * one.scale[k]);
        }
      }
    }
    if (propagate_down[1]) {
      bottom[1]->diff.zero();
      const float* scores = bottom[1]->data.read();
      float* d = bottom[1]->diff.write();
      for (const Item& item : items_) add_confidence_gradient(scores + item.at, item, weight, d + item.at);
    }
  }

  bool allows_gradient(int index) const override { return index < 2; }

 private:
  struct Truth {
    int64_t label;
    Box box;
  };

  // A matched box: where its offsets stand, how far they are off, and what a step of them counts in that.
  struct Located {
    int64_t at, prior, label;
    std::array<float, 4> error, scale;
  };

  // A box whose class counts: where its scores stand, and the true classes (of softmax one).
  struct Item {
    int64_t at;
    std::vector<int64_t> labels;
  };

  const Message& fields() const { return param().message("multibox_loss_param"); }

  void read_truths(const Blob& blob) {
    truths_.assign(shapes_.images, {});
    const float* row = blob.data.read();
    for (int64_t i = 0; i < blob.count() / 8; ++i, row += 8) {
      const int64_t image = to_label(row[0]), label = to_label(row[1]);
      if (image == -1) continue;
      if (image < 0 || image >= shapes_.images) {
        throw Error(ErrorKind::kData,
                    join("true box ", i, " is of image ", row[0], ", but there are ", shapes_.images, " in the batch"),
                    3);
      }
      if (label == background_) {
        throw Error(ErrorKind::kData, join("true box ", i, " is of class ", label, ", the background"), 3);
      }
      if (row[7] != 0.0f && !fields().flag("use_difficult_gt")) continue;
      if (!fields().flag("map_object_to_agnostic") && (label < 0 || label >= shapes_.classes)) {
        throw Error(ErrorKind::kData,
                    join("class ", row[1], " of true box ", i, " is not one of the ", shapes_.classes, " classes"), 3);
      }
      truths_[image].push_back(
          {fields().flag("map_object_to_agnostic") ? background_ + 1 : label, {row[3], row[4], row[5], row[6]}});
    }
  }

  // The matched boxes of an image. Where classes have boxes of their own, one can be matched for several classes.
  std::vector<Located> locate(const Blobs& bottom, const std::vector<Prior>& priors, int64_t image) {
    unmatched_.assign(priors.size(), false);
    std::vector<Located> located;
    const std::vector<Truth>& truths = truths_[image];
    if (truths.empty()) return located;
    const bool by_prior = fields().flag("use_prior_for_matching");
    const int64_t classes = shapes_.location_classes, first = image * shapes_.priors * classes * 4;
    for (int64_t c = 0; c < classes; ++c) {
      if (classes > 1 && c == background_) continue;
      std::vector<size_t> own;  // truths that these boxes can stand for
      std::vector<Box> true_boxes, boxes;
      for (size_t i = 0; i < truths.size(); ++i) {
        if (!by_prior && classes > 1 && truths[i].label != c) continue;
        own.push_back(i);
        true_boxes.push_back(truths[i].box);
      }
      for (size_t i = 0; i < priors.size(); ++i) {
        const float* offsets = bottom[0]->data.read() + first + (static_cast<int64_t>(i) * classes + c) * 4;
        boxes.push_back(by_prior ? priors[i].box : code_.decode(offsets, priors[i]));
      }
      const Matches found =
          match(boxes, true_boxes, fields().text("match_type") == "PER_PREDICTION",
                static_cast<float>(fields().real("overlap_threshold")), fields().flag("ignore_cross_boundary_bbox"));
      for (size_t i = 0; i < priors.size(); ++i) {
        if (found.truth[i] >= 0) {
          const Truth& truth = truths[own[found.truth[i]]];
          if (classes > 1 && truth.label != c) continue;
          const int64_t at = first + (static_cast<int64_t>(i) * classes + c) * 4;
          located.push_back(
              offset_error(bottom[0]->data.read() + at, at, static_cast<int64_t>(i), priors[i], truth, boxes[i]));
        } else if (found.truth[i] == Matches::kNone) {
          unmatched_[i] = mining_ == "HARD_EXAMPLE" || found.overlap[i] < fields().real("neg_overlap");
        }
      }
    }
    return located;
  }

  Located offset_error(const float* offsets, int64_t at, int64_t index, const Prior& prior, const Truth& truth,
                       const Box& matched) const {
    const std::array<float, 4> wanted = code_.encode(truth.box, prior);
    const float corners[] = {matched.xmin, matched.ymin, matched.xmax, matched.ymax};
    Located one = {at, index, truth.label, {}, {}};
    for (int k = 0; k < 4; ++k) {
      // bp_inside: what lies outside the image does not count.
      if (fields().flag("bp_inside") && (corners[k] < 0.0f || corners[k] > 1.0f)) continue;
      one.scale[k] = code_.variance_in_target() ? 1.0f / prior.variance[k] : 1.0f;
      one.error[k] = (offsets[k] - wanted[k]) * one.scale[k];
    }
    return one;
  }

  // Chooses the boxes of an image whose classes count; HARD_EXAMPLE takes matches away, too.
  void classify(const Blobs& bottom, int64_t image, std::vector<Located>& located) {
    const float* scores = bottom[1]->data.read();
    std::vector<Item> all(shapes_.priors);
    for (int64_t i = 0; i < shapes_.priors; ++i) {
      all[i].at = (image * shapes_.priors + i) * shapes_.classes;
    }
    for (const Located& one : located) {
      auto& labels = all[one.prior].labels;
      if (softmax_) labels.clear();  // the last one counts
      labels.push_back(one.label);
    }
    for (Item& item : all) {
      if (item.labels.empty() && background_ < shapes_.classes) item.labels.push_back(background_);
    }
    if (mining_ == "NONE") {
      items_.insert(items_.end(), all.begin(), all.end());
      return;
    }
    if (located.empty() && truths_[image].empty()) return;

    std::vector<double> loss(shapes_.priors);
    std::vector<int64_t> order;
    for (int64_t i = 0; i < shapes_.priors; ++i) {
      if (unmatched_[i]) order.push_back(i);
      if (unmatched_[i] || mining_ == "HARD_EXAMPLE") loss[i] = confidence_loss(scores + all[i].at, all[i]);
    }
    auto most = static_cast<int64_t>(std::min(static_cast<double>(located.size()) * fields().real("neg_pos_ratio"),
                                              static_cast<double>(shapes_.priors)));
    if (mining_ == "HARD_EXAMPLE") {
      most = fields().integer("sample_size");
      for (const Located& one : located) {
        order.push_back(one.prior);
        for (int k = 0; k < 4; ++k) loss[one.prior] += location_loss(one.error[k]);
      }
      std::sort(order.begin(), order.end());
    }
    // NaN has no place in an order; among the largest it shows in the sum.
    std::replace_if(loss.begin(), loss.end(), [](double one) { return std::isnan(one); }, HUGE_VAL);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return loss[a] > loss[b]; });
    if (static_cast<int64_t>(order.size()) > most) order.resize(most);
    const auto chosen = [&](int64_t i) { return std::find(order.begin(), order.end(), i) != order.end(); };
    if (mining_ == "HARD_EXAMPLE") {
      located.erase(
          std::remove_if(located.begin(), located.end(), [&](const Located& one) { return !chosen(one.prior); }),
          located.end());
    } else {
      for (const Located& one : located) items_.push_back(all[one.prior]);
    }
    for (const int64_t i : order) items_.push_back(all[i]);
  }

  bool squares() const { return fields().text("loc_loss_type") == "L2"; }
  double location_loss(float error) const {
    return squares() ? 0.5 * static_cast<double>(error) * error : static_cast<double>(smooth_l1(error, 1.0f));
  }
  double location_slope(float error) const { return squares() ? error : smooth_l1_slope(error, 1.0f); }

  // log(sum exp(score)).
  double log_sum(const float* scores) const {
    const double most = *std::max_element(scores, scores + shapes_.classes);
    double sum = 0.0;
    for (int64_t c = 0; c < shapes_.classes; ++c) sum += std::exp(scores[c] - most);
    return most + std::log(sum);
  }

  double confidence_loss(const float* scores, const Item& item) const {
    if (softmax_) {
      const double loss = log_sum(scores) - scores[item.labels[0]];
      const double most = -std::log(FLT_MIN);  // as SoftmaxWithLoss
      return loss > most ? most : loss;
    }
    double loss = 0.0;
    for (int64_t c = 0; c < shapes_.classes; ++c) {
      // log(1 + exp(x)), less x where the class is true.
      loss += std::max(scores[c], 0.0f) + std::log1p(std::exp(-std::fabs(static_cast<double>(scores[c]))));
      if (is_label(item, c)) loss -= scores[c];
    }
    return loss;
  }

  void add_confidence_gradient(const float* scores, const Item& item, double weight, float* to) const {
    const double all = softmax_ ? log_sum(scores) : 0.0;
    for (int64_t c = 0; c < shapes_.classes; ++c) {
      const double p = softmax_ ? std::exp(scores[c] - all) : 0.5 * std::tanh(0.5 * scores[c]) + 0.5;
      to[c] += static_cast<float>(weight * (p - (is_label(item, c) ? 1.0 : 0.0)));
    }
  }

  static bool is_label(const Item& item, int64_t label) {
    return std::find(item.labels.begin(), item.labels.end(), label) != item.labels.end();
  }

  double normalizer() const { return rule_.normalizer(shapes_.images * shapes_.priors, shapes_.images, matches_); }

  const BoxCode code_;
  const LossRule rule_;
  std::string mining_;
  bool softmax_ = true;
  int64_t background_ = 0;
  bool counts_[2] = {true, true};
  BoxShapes shapes_{};

  // Of the forward pass: shapes of offsets and scores, true boxes by image, of the image at hand the boxes that may be
  // chosen as negatives, the matched boxes, the boxes whose classes count.
  Shape located_, scored_;
  std::vector<std::vector<Truth>> truths_;
  std::vector<bool> unmatched_;
  std::vector<Located> offsets_;
  std::vector<Item> items_;
  int64_t matches_ = 0;
};

REGISTER_LAYER(MultiBoxLossLayer, LayerSpec("MultiBoxLoss", "the loss of boxes and their classes, SSD's")
                                      .messages({"multibox_loss_param", "loss_param"})
                                      .positional({"num_classes"})
                                      .bottoms(4, 4)
                                      .named({"locations", "scores", "prior boxes", "true boxes"})
                                      .reads_bottom()
                                      .loss());

}  // namespace sparknet
