#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "core/dnnl_util.h"
#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"
#include "core/wide.h"

namespace sparknet {

namespace {

// y = max(ca a + cb b, floor), where y may be a.
SPARKNET_WIDE void add(const float* a, float ca, const float* b, float cb, float floor, int64_t count, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const float sum = ca * a[i] + cb * b[i];
    y[i] = sum < floor ? floor : sum;
  }
}

}  // namespace

// y = sum of coeff_i x_i, product of x_i, or maximum of x_i. As in Caffe, `coeff` is for SUM only (MAX ignores it);
// equal maxima of the first two bottoms belong to the second, a later bottom must be strictly greater; and with
// stable_prod_grad: false the gradient of a product is y / x_i, which is NaN where x_i is 0.
//
// The type does not say reads_bottom(): SUM and MAX read none in the backward pass. PROD does, and as in Caffe a layer
// that has overwritten one in place since then makes its gradient wrong.
class EltwiseLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    const Message& own = param().message("eltwise_param");
    const std::string& operation = own.text("operation");
    operation_ = operation == "PROD" ? Operation::kProduct : operation == "MAX" ? Operation::kMax : Operation::kSum;
    stable_ = own.flag("stable_prod_grad");
    coefficients_.assign(bottom.size(), 1.0f);
    if (!own.has("coeff")) return;
    const auto& given = own.reals("coeff");
    if (operation_ == Operation::kProduct) fail(ErrorKind::kField, "coeff is for operation SUM, not PROD");
    if (given.size() != bottom.size()) {
      fail(ErrorKind::kField, "coeff needs a value for each of the ", bottom.size(), " bottoms, got ", given.size());
    }
    std::copy(given.begin(), given.end(), coefficients_.begin());
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    for (size_t i = 1; i < bottom.size(); ++i) {
      if (bottom[i]->shape() == bottom[0]->shape()) continue;
      throw Error(
          ErrorKind::kShape,
          join("all bottoms must have the same shape, but `", bottom[0]->name, "` is ", to_string(bottom[0]->shape()),
               " and `", bottom[i]->name, "` is ", to_string(bottom[i]->shape())),
          static_cast<int>(i));
    }
    top[0]->reshape(bottom[0]->shape());
  }

  Absorbs absorb(const Layer& next) override {
    return operation_ == Operation::kSum && rectifies(next) ? Absorbs::kForward : Absorbs::kNothing;
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const auto x = values(bottom);
    float* y = top[0]->data.overwrite_as(x.layout);
    if (operation_ == Operation::kMax) {
      winner_.resize(x.count);
      layout_ = x.layout;
    }
    parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
      // Piece by piece: with many bottoms the sum so far stays in the cache.
      for (int64_t from = begin; from < end; from += kPiece) combine(x.of, from, std::min(end, from + kPiece), y);
    });
  }

  bool keeps_bottom() const override { return operation_ == Operation::kProduct; }
  bool keeps_top() const override { return false; }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    switch (operation_) {
      case Operation::kSum: backward_sum(*top[0], propagate_down, bottom); break;
      case Operation::kProduct: backward_product(*top[0], propagate_down, bottom); break;
      case Operation::kMax: backward_max(*top[0], propagate_down, bottom); break;
    }
  }

 private:
  enum class Operation { kSum, kProduct, kMax };
  static constexpr int64_t kPiece = 4096;

  // The bottoms' values, all in one layout.
  struct Values {
    std::vector<const float*> of;
    int64_t count;
    LayoutPtr layout;
  };

  Values values(const Blobs& bottom) const {
    Values result;
    result.count = bottom[0]->count();
    // The first that has one; the others follow. Not if dividing padding by padding would make it NaN.
    for (const Blob* blob : bottom) {
      const LayoutPtr layout = blob->data.layout();
      if (!layout || (!stable_ && layout_count(*layout) != blob->count())) continue;
      result.layout = layout;
      result.count = layout_count(*layout);
      break;
    }
    for (const Blob* blob : bottom) result.of.push_back(blob->data.read_as(result.layout));
    return result;
  }

  void combine(const std::vector<const float*>& x, int64_t begin, int64_t end, float* y) {
    const float *a = x[0], *b = x[1];
    switch (operation_) {
      case Operation::kSum:
        for (size_t i = 1; i < x.size(); ++i) {
          const bool first = i == 1, last = i + 1 == x.size();
          add((first ? x[0] : y) + begin, first ? coefficients_[0] : 1.0f, x[i] + begin, coefficients_[i],
              last && fused ? 0.0f : -std::numeric_limits<float>::infinity(), end - begin, y + begin);
        }
        break;
      case Operation::kProduct:
        for (int64_t k = begin; k < end; ++k) y[k] = a[k] * b[k];
        for (size_t i = 2; i < x.size(); ++i) {
          const float* c = x[i];
          for (int64_t k = begin; k < end; ++k) y[k] *= c[k];
        }
        break;
      case Operation::kMax:
        for (int64_t k = begin; k < end; ++k) {
          winner_[k] = a[k] > b[k] ? 0 : 1;
          y[k] = a[k] > b[k] ? a[k] : b[k];
        }
        for (size_t i = 2; i < x.size(); ++i) {
          const float* c = x[i];
          for (int64_t k = begin; k < end; ++k) {
            if (!(c[k] > y[k])) continue;
            winner_[k] = static_cast<int32_t>(i);
            y[k] = c[k];
          }
        }
        break;
    }
  }

  void backward_sum(const Blob& top, const std::vector<bool>& propagate_down, const Blobs& bottom) const {
    const NativeView dy = top.diff.native();
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (!propagate_down[i]) continue;
      const float coefficient = coefficients_[i];
      if (coefficient == 1.0f) {
        bottom[i]->diff.copy(top.diff);
        continue;
      }
      float* dx = bottom[i]->diff.overwrite_as(dy.layout);
      parallel_for(dy.count, kElementGrain, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) dx[k] = coefficient * dy.values[k];
      });
    }
  }

  void backward_product(const Blob& top, const std::vector<bool>& propagate_down, const Blobs& bottom) const {
    const auto x = values(bottom);
    const float* dy = top.diff.read_as(x.layout);
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (!propagate_down[i]) continue;
      float* dx = bottom[i]->diff.overwrite_as(x.layout);
      parallel_for(x.count, kElementGrain, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) dx[k] = dy[k] * others(x.of, i, k);
      });
    }
  }

  void backward_max(const Blob& top, const std::vector<bool>& propagate_down, const Blobs& bottom) const {
    const float* dy = top.diff.read_as(layout_);
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (!propagate_down[i]) continue;
      float* dx = bottom[i]->diff.overwrite_as(layout_);
      const auto own = static_cast<int32_t>(i);
      parallel_for(static_cast<int64_t>(winner_.size()), kElementGrain, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) dx[k] = winner_[k] == own ? dy[k] : 0.0f;
      });
    }
  }

  // The derivative of the product of element `k` with respect to bottom `i`.
  float others(const std::vector<const float*>& x, size_t i, int64_t k) const {
    float product = 1.0f;
    for (size_t j = 0; j < x.size(); ++j) {
      if (!stable_ || j != i) product *= x[j][k];
    }
    return stable_ ? product : product / x[i][k];
  }

  Operation operation_ = Operation::kSum;
  bool stable_ = true;
  std::vector<float> coefficients_;
  std::vector<int32_t> winner_;  // MAX: which bottom gave each element, in layout_
  LayoutPtr layout_;
};

REGISTER_LAYER(EltwiseLayer, LayerSpec("Eltwise", "the sum, product or maximum of blobs of one shape")
                                 .messages({"eltwise_param"})
                                 .positional({"operation"})
                                 .bottoms(2, LayerSpec::kAny));

}  // namespace sparknet
