#include "core/folding.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace sparknet {

bool scales_channels(const Layer& scale, int64_t channels, int axes) {
  if (scale.params.empty() || scale.params[0]->shape() != Shape{channels} || axes < 2) return false;
  const int64_t axis = scale.param().message("scale_param").integer("axis");
  return (axis < 0 ? axis + axes : axis) == 1;
}

bool Folding::absorb(const Layer& next, int64_t outputs, int axes) {
  if (scale_ != nullptr) return false;
  const std::string& type = next.param().text("type");
  if (type == "BatchNorm" && norm_ == nullptr) {
    const Message& fields = next.param().message("batch_norm_param");
    const bool fixed = fields.has("use_global_stats") ? fields.flag("use_global_stats") : next.phase() == Phase::kTest;
    if (fixed && next.params[0]->count() == outputs) norm_ = &next;
    return norm_ == &next;
  }
  if (type == "Scale" && scales_channels(next, outputs, axes)) scale_ = &next;
  return scale_ == &next;
}

void Folding::update(const std::vector<std::shared_ptr<Blob>>& params) {
  std::vector<uint64_t> versions;
  const auto note = [&](const std::vector<std::shared_ptr<Blob>>& blobs) {
    for (const auto& blob : blobs) versions.push_back(blob->data.version());
  };
  note(params);
  if (norm_ != nullptr) note(norm_->params);
  if (scale_ != nullptr) note(scale_->params);
  // Those that somebody holds on to have version 0, and may have changed.
  const bool known = std::find(versions.begin(), versions.end(), 0) == versions.end();
  if (known && versions == versions_) return;
  versions_ = std::move(versions);

  const int64_t outputs = params[0]->data.dim(0);
  std::vector<float> factor(outputs, 1.0f), shift(outputs, 0.0f);
  if (params.size() > 1) std::copy_n(params[1]->data.read(), outputs, shift.begin());
  if (norm_ != nullptr) {
    const float *means = norm_->params[0]->data.read(), *variances = norm_->params[1]->data.read();
    const float weight = norm_->params[2]->data.read()[0];
    const float share = weight == 0.0f ? 0.0f : 1.0f / weight;
    const auto eps = static_cast<float>(norm_->param().message("batch_norm_param").real("eps"));
    for (int64_t i = 0; i < outputs; ++i) {
      factor[i] = 1.0f / std::sqrt(variances[i] * share + eps);
      shift[i] = (shift[i] - means[i] * share) * factor[i];
    }
  }
  if (scale_ != nullptr) {
    const float* scales = scale_->params[0]->data.read();
    const float* shifts = scale_->params.size() > 1 ? scale_->params[1]->data.read() : nullptr;
    for (int64_t i = 0; i < outputs; ++i) {
      factor[i] *= scales[i];
      shift[i] = shift[i] * scales[i] + (shifts == nullptr ? 0.0f : shifts[i]);
    }
  }
  weights_.reshape(params[0]->shape());
  const int64_t filter = weights_.count() / outputs;
  const float* from = params[0]->data.read();
  float* to = weights_.overwrite();
  for (int64_t i = 0; i < outputs; ++i) {
    for (int64_t j = i * filter; j < (i + 1) * filter; ++j) to[j] = from[j] * factor[i];
  }
  bias_.reshape({outputs});
  std::copy(shift.begin(), shift.end(), bias_.overwrite());
}

}  // namespace sparknet
