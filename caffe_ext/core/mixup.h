// Means of two rows.
#pragma once

#include <cstdint>
#include <vector>

#include "core/message.h"

namespace sparknet {

// Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018: each row of a batch becomes w times itself plus
// 1 - w times another one, its partner.
//
// There w is from Beta(alpha, alpha), and the loss is w times that of the row's label plus 1 - w times that of the
// partner's. Layers of Caffe's take one label for a row. So a row keeps its label, and w is from Beta(alpha + 1,
// alpha): since each of two rows is the other's partner as often, and losses such as the cross-entropy are linear in
// the label's distribution, the mean of the loss over what is drawn, and its gradient, are the same.
class Mixup {
 public:
  // `param` is a MixupParameter. Throws Error(kField).
  explicit Mixup(const Message& param);

  // Mixes the rows of a batch, `size` values each, in place; weights and partners are functions of the seed.
  void apply(uint64_t seed, int64_t rows, int64_t size, float* batch) const;

 private:
  double alpha_;
};

}  // namespace sparknet
