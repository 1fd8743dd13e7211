#include "core/boxes.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace sparknet {

namespace {

BoxCode::Type code_type(const std::string& name) {
  return name == "CORNER"        ? BoxCode::Type::kCorner
         : name == "CENTER_SIZE" ? BoxCode::Type::kCenterSize
                                 : BoxCode::Type::kCornerSize;
}

// A box by its centre and its size.
struct Centred {
  float x, y, w, h;
  explicit Centred(const Box& box)
      : x((box.xmin + box.xmax) / 2.0f),
        y((box.ymin + box.ymax) / 2.0f),
        w(box.xmax - box.xmin),
        h(box.ymax - box.ymin) {}
};

void check_area(const Box& box, const char* what) {
  if (box.xmax > box.xmin && box.ymax > box.ymin) return;
  fail(ErrorKind::kData, "a ", what, " box has no area: ", box.xmin, ", ", box.ymin, ", ", box.xmax, ", ", box.ymax);
}

}  // namespace

float overlap(const Box& a, const Box& b) {
  const float w = std::min(a.xmax, b.xmax) - std::max(a.xmin, b.xmin);
  const float h = std::min(a.ymax, b.ymax) - std::max(a.ymin, b.ymin);
  if (!(w > 0.0f && h > 0.0f)) return 0.0f;
  return w * h / (a.area() + b.area() - w * h);
}

BoxCode::BoxCode(const Message& fields, const std::string& variance_field)
    : type_(code_type(fields.text("code_type"))), variance_in_target_(fields.flag(variance_field)) {}

std::array<float, 4> BoxCode::encode(const Box& box, const Prior& prior) const {
  const Box& from = prior.box;
  std::array<float, 4> offsets = {box.xmin - from.xmin, box.ymin - from.ymin, box.xmax - from.xmax,
                                  box.ymax - from.ymax};
  if (type_ != Type::kCorner) {
    check_area(from, "prior");
    const Centred p(from);
    if (type_ == Type::kCenterSize) {
      check_area(box, "true");
      const Centred b(box);
      offsets = {(b.x - p.x) / p.w, (b.y - p.y) / p.h, std::log(b.w / p.w), std::log(b.h / p.h)};
    } else {
      offsets = {offsets[0] / p.w, offsets[1] / p.h, offsets[2] / p.w, offsets[3] / p.h};
    }
  }
  if (!variance_in_target_) {
    for (int i = 0; i < 4; ++i) offsets[i] /= prior.variance[i];
  }
  return offsets;
}

Box BoxCode::decode(const float* offsets, const Prior& prior) const {
  const Box& from = prior.box;
  std::array<float, 4> o;
  for (int i = 0; i < 4; ++i) o[i] = offsets[i] * (variance_in_target_ ? 1.0f : prior.variance[i]);
  if (type_ == Type::kCorner) return {from.xmin + o[0], from.ymin + o[1], from.xmax + o[2], from.ymax + o[3]};
  check_area(from, "prior");
  const Centred p(from);
  if (type_ == Type::kCornerSize) {
    return {from.xmin + o[0] * p.w, from.ymin + o[1] * p.h, from.xmax + o[2] * p.w, from.ymax + o[3] * p.h};
  }
  const float x = o[0] * p.w + p.x, y = o[1] * p.h + p.y;
  const float w = std::exp(o[2]) * p.w / 2.0f, h = std::exp(o[3]) * p.h / 2.0f;
  return {x - w, y - h, x + w, y + h};
}

std::vector<Prior> read_priors(const Blob& blob) {
  const int64_t count = blob.count() / 8;
  const float* box = blob.data.read();
  const float* variance = box + count * 4;
  std::vector<Prior> priors;
  for (int64_t i = 0; i < count; ++i, box += 4, variance += 4) {
    priors.push_back({{box[0], box[1], box[2], box[3]}, {variance[0], variance[1], variance[2], variance[3]}});
    for (int k = 0; k < 4; ++k) {
      if (variance[k] > 0.0f) continue;
      throw Error(ErrorKind::kData, join("a variance of prior box ", i, " is ", variance[k], ", not above 0"), 2);
    }
  }
  return priors;
}

BoxShapes check_box_shapes(const Blobs& bottom, const Message& fields) {
  const int64_t classes = fields.integer("num_classes");
  if (classes < 1) fail(ErrorKind::kField, "num_classes must be at least 1");
  const Shape& priors = bottom[2]->shape();
  if (priors.size() < 3 || priors[0] != 1 || priors[1] != 2 || bottom[2]->count() != 2 * priors[2] ||
      priors[2] % 4 != 0) {
    throw Error(ErrorKind::kShape,
                join("`", bottom[2]->name, "` must be 1 × 2 × 4 P for P prior boxes, not ", to_string(priors)), 2);
  }
  const BoxShapes shapes = {bottom[0]->shape().empty() ? 0 : bottom[0]->shape()[0], priors[2] / 4, classes,
                            fields.flag("share_location") ? 1 : classes};
  const char* wanted[] = {" locations (4 for each prior box, and class unless they share), ",
                          " scores (one for each prior box and class), "};
  for (int i = 0; i < 2; ++i) {
    const Shape& shape = bottom[i]->shape();
    const int64_t values = count({shapes.priors, i == 0 ? 4 * shapes.location_classes : classes});
    if (!shape.empty() && shape[0] == shapes.images && count(shape, 1, static_cast<int>(shape.size())) == values) {
      continue;
    }
    throw Error(ErrorKind::kShape,
                join("with ", shapes.priors, " prior boxes and ", classes, " classes each row of `", bottom[i]->name,
                     "` must have ", values, wanted[i], "in as many rows as `", bottom[0]->name, "`, but it is ",
                     to_string(shape)),
                i);
  }
  return shapes;
}

std::vector<int64_t> suppress(const std::vector<Box>& boxes, const std::vector<float>& scores, float least,
                              float threshold, float eta, int64_t most) {
  std::vector<int64_t> order;
  for (size_t i = 0; i < boxes.size(); ++i) {
    if (scores[i] > least) order.push_back(static_cast<int64_t>(i));
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  if (most >= 0 && static_cast<int64_t>(order.size()) > most) order.resize(most);
  std::vector<int64_t> kept;
  for (const int64_t i : order) {
    const bool free = std::all_of(kept.begin(), kept.end(),
                                  [&](int64_t other) { return overlap(boxes[i], boxes[other]) <= threshold; });
    if (!free) continue;
    kept.push_back(i);
    if (threshold > 0.5f) threshold *= eta;
  }
  return kept;
}

Matches match(const std::vector<Box>& boxes, const std::vector<Box>& truths, bool per_prediction, float threshold,
              bool ignore_outside) {
  constexpr float kLeast = 1e-6f;  // what is less does not count as an overlap
  struct Pair {
    int64_t box, truth;
    float overlap;
  };
  Matches result;
  result.truth.assign(boxes.size(), Matches::kNone);
  result.overlap.assign(boxes.size(), 0.0f);
  std::vector<Pair> pairs;
  for (size_t i = 0; i < boxes.size(); ++i) {
    if (ignore_outside && !boxes[i].inside_image()) {
      result.truth[i] = Matches::kIgnored;
      continue;
    }
    for (size_t j = 0; j < truths.size(); ++j) {
      const float common = overlap(boxes[i], truths[j]);
      if (!(common > kLeast)) continue;
      pairs.push_back({static_cast<int64_t>(i), static_cast<int64_t>(j), common});
      result.overlap[i] = std::max(result.overlap[i], common);
    }
  }

  // The best pair first; of equal ones that of the first box, then of the first truth.
  std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.overlap > b.overlap; });
  std::vector<bool> taken(truths.size(), false);
  for (const Pair& pair : pairs) {
    if (taken[pair.truth] || result.truth[pair.box] != Matches::kNone) continue;
    taken[pair.truth] = true;
    result.truth[pair.box] = pair.truth;
    result.overlap[pair.box] = pair.overlap;
  }
  if (!per_prediction) return result;
  for (const Pair& pair : pairs) {
    if (result.truth[pair.box] == Matches::kNone && pair.overlap >= threshold) result.truth[pair.box] = pair.truth;
  }
  return result;
}

}  // namespace sparknet
