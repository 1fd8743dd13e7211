#include <cfloat>
#include <limits>
#include <optional>

#include "core/dnnl_util.h"
#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"
#include "core/random.h"

namespace sparknet {

// The maximum, the average or a random element of each window of each channel plane of an N × C × H × W bottom.
//
// As in Caffe: output sizes round up unless round_mode is FLOOR (the forks: ceil_mode is false), and where there is
// padding a last window that would start beyond the input and its padding is dropped. AVE divides by the size of the
// window clipped to the padded input: padding counts, what reaches beyond it does not. The first of equal maxima gets
// the gradient. Without padding and with a stride larger than the kernel the last window can lie outside the input: its
// maximum is -FLT_MAX and its average 0 (in Caffe 0/0), and no gradient flows from it.
//
// A second top of MAX is the place of the maximum, h * W + w, -1 for windows outside.
//
// STOCHASTIC (Zeiler and Fergus, "Stochastic pooling for regularization of deep convolutional neural networks", ICLR
// 2013): in TRAIN an element drawn with probability proportional to its value, in TEST the average weighted by the
// values. Caffe has it on GPUs only and without a gradient in TEST.
class PoolingLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs& top) override {
    const Message& fields = param().message("pooling_param");
    const std::string& method = fields.text("pool");
    method_ = method == "MAX" ? Method::kMax : method == "AVE" ? Method::kAverage : Method::kStochastic;
    round_up_ = fields.has("ceil_mode") ? fields.flag("ceil_mode") : fields.text("round_mode") != "FLOOR";
    global_ = fields.flag("global_pooling");
    if (top.size() > 1 && method_ != Method::kMax) {
      fail(ErrorKind::kTops, "only MAX pooling has a second top (the places of the maxima), not ", method);
    }

    if (global_ && (fields.has("kernel_size") || fields.has("kernel_h") || fields.has("kernel_w"))) {
      fail(ErrorKind::kField, "global_pooling takes the whole input: leave the kernel's size away");
    }
    if (!global_ && !fields.has("kernel_size") && !fields.has("kernel_h") && !fields.has("kernel_w")) {
      fail(ErrorKind::kField, "kernel_size is missing (or global_pooling: true)");
    }
    kernel_ = pair(fields, "kernel_size", "kernel_h", "kernel_w", global_ ? 0 : 1);
    stride_ = pair(fields, "stride", "stride_h", "stride_w", 1);
    pad_ = pair(fields, "pad", "pad_h", "pad_w", 0);
    const bool padded = pad_.h != 0 || pad_.w != 0;
    if (global_ && (padded || stride_.h != 1 || stride_.w != 1)) {
      fail(ErrorKind::kField, "global_pooling goes with pad 0 and stride 1 only");
    }
    if (padded && method_ == Method::kStochastic) fail(ErrorKind::kField, "STOCHASTIC pooling takes no padding");
    if (padded && (pad_.h >= kernel_.h || pad_.w >= kernel_.w)) {
      fail(ErrorKind::kField, "pad ", text(pad_), " must be smaller than the kernel ", text(kernel_));
    }
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    if (shape.size() != 4) {
      fail(ErrorKind::kShape, "the bottom must have 4 axes (N × C × H × W), not ", to_string(shape));
    }
    size_ = {shape[2], shape[3]};
    if (size_.h < 1 || size_.w < 1) {
      fail(ErrorKind::kShape, "the bottom (", to_string(shape), ") has no places to pool");
    }
    if (global_) kernel_ = size_;
    const Pair output = {windows(size_.h, kernel_.h, stride_.h, pad_.h),
                         windows(size_.w, kernel_.w, stride_.w, pad_.w)};
    if (output.h < 1 || output.w < 1) {
      fail(ErrorKind::kShape, "kernel ", text(kernel_), " is larger than the padded input ",
           text({size_.h + 2 * pad_.h, size_.w + 2 * pad_.w}));
    }
    for (Blob* blob : top) blob->reshape({shape[0], shape[1], output.h, output.w});
    if (shape != shape_) {
      shape_ = shape;
      forward_pd_.reset();
    }
    output_ = output;
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (top[0]->count() == 0) return;
    const auto algorithm = onednn_algorithm(top);
    if (algorithm) {
      forward_onednn(*algorithm, *bottom[0], *top[0]);
    } else if (method_ == Method::kMax) {
      forward_max(*bottom[0], top);
    } else if (method_ == Method::kAverage) {
      forward_average(*bottom[0], *top[0]);
    } else {
      forward_stochastic(*bottom[0], *top[0]);
    }
  }

  bool keeps_bottom() const override { return method_ == Method::kStochastic; }
  bool keeps_top() const override { return false; }
  void forget() override {
    workspace_.drop();
    chosen_ = {};
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0] || top[0]->count() == 0) return;
    if (onednn_algorithm(top)) {
      backward_onednn(*top[0], *bottom[0]);
    } else if (method_ == Method::kMax || (method_ == Method::kStochastic && phase() == Phase::kTrain)) {
      backward_chosen(*top[0], *bottom[0]);
    } else if (method_ == Method::kAverage) {
      backward_average(*top[0], *bottom[0]);
    } else {
      backward_weighted(*top[0], *bottom[0]);
    }
  }

 private:
  enum class Method { kMax, kAverage, kStochastic };

  struct Pair {
    int64_t h, w;
  };

  // A window clipped to the input; `area` is its size clipped to the padded input only, at least 1.
  struct Window {
    int64_t h_begin, h_end, w_begin, w_end, area;
    bool empty() const { return h_begin >= h_end || w_begin >= w_end; }
  };

  static std::string text(Pair pair) { return to_string({pair.h, pair.w}); }

  // `field`, or both of `field_h` and `field_w`.
  static Pair pair(const Message& fields, const std::string& field, const std::string& field_h,
                   const std::string& field_w, int64_t least) {
    Pair values = {fields.integer(field), fields.integer(field)};
    if (fields.has(field_h) || fields.has(field_w)) {
      if (fields.has(field)) {
        fail(ErrorKind::kField, field, " and ", field_h, "/", field_w, " exclude each other: keep one form");
      }
      for (const std::string& name : {field_h, field_w}) {
        if (!fields.has(name)) {
          fail(ErrorKind::kField, name, " is missing: ", field_h, " and ", field_w, " go together");
        }
      }
      values = {fields.integer(field_h), fields.integer(field_w)};
    }
    const int64_t smaller = std::min(values.h, values.w);
    if (smaller < least) fail(ErrorKind::kField, field, " must be at least ", least, ", not ", smaller);
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();  // Caffe's numbers are of 32 bits
    const int64_t larger = std::max(values.h, values.w);
    if (larger > kMost) fail(ErrorKind::kField, field, " must be at most ", kMost, ", not ", larger);
    return values;
  }

  int64_t windows(int64_t size, int64_t kernel, int64_t stride, int64_t pad) const {
    const int64_t room = size + 2 * pad - kernel;
    if (room <= -stride || (room < 0 && !round_up_)) return 0;
    int64_t count = (room < 0 ? 0 : (room + (round_up_ ? stride - 1 : 0)) / stride) + 1;
    const bool padded = pad_.h != 0 || pad_.w != 0;
    if (padded && (count - 1) * stride >= size + pad) --count;
    return count;
  }

  Window window(int64_t h, int64_t w) const {
    const int64_t h_begin = h * stride_.h - pad_.h, w_begin = w * stride_.w - pad_.w;
    const int64_t h_end = std::min(h_begin + kernel_.h, size_.h + pad_.h);
    const int64_t w_end = std::min(w_begin + kernel_.w, size_.w + pad_.w);
    return {std::max<int64_t>(h_begin, 0), std::min(h_end, size_.h), std::max<int64_t>(w_begin, 0),
            std::min(w_end, size_.w), std::max<int64_t>((h_end - h_begin) * (w_end - w_begin), 1)};
  }

  // Calls body(plane, output index, window) for every output, planes in parallel; input planes have size_.h * size_.w
  // values.
  template <typename Body>
  void for_each_window(const Body& body) const {
    const int64_t area = output_.h * output_.w;
    const int64_t covered = std::min(kernel_.h, size_.h) * std::min(kernel_.w, size_.w);
    parallel_for(shape_[0] * shape_[1], std::max<int64_t>(kElementGrain / covered / area, 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t plane = begin; plane < end; ++plane) {
                     for (int64_t h = 0; h < output_.h; ++h) {
                       for (int64_t w = 0; w < output_.w; ++w) {
                         body(plane * size_.h * size_.w, plane * area + h * output_.w + w, window(h, w));
                       }
                     }
                   }
                 });
  }

  template <typename Body>
  void for_each_place(const Window& window, const Body& body) const {
    for (int64_t h = window.h_begin; h < window.h_end; ++h) {
      for (int64_t w = window.w_begin; w < window.w_end; ++w) body(h * size_.w + w);
    }
  }

  // What oneDNN calls what is asked for, if it computes just that.
  std::optional<dnnl::algorithm> onednn_algorithm(const Blobs& top) const {
    const Pair beyond = {(output_.h - 1) * stride_.h + kernel_.h - size_.h - 2 * pad_.h,
                         (output_.w - 1) * stride_.w + kernel_.w - size_.w - 2 * pad_.w};
    const bool outside = beyond.h >= kernel_.h || beyond.w >= kernel_.w;
    // oneDNN visits every place of a window, those in the padding and beyond it too: a window of 2^30 would take for
    // ever.
    const bool huge = pad_.h > size_.h || pad_.w > size_.w || kernel_.h > 3 * size_.h || kernel_.w > 3 * size_.w;
    if (outside || huge || top.size() > 1 || method_ == Method::kStochastic) return std::nullopt;
    if (method_ == Method::kMax) return dnnl::algorithm::pooling_max;
    if (beyond.h <= 0 && beyond.w <= 0) return dnnl::algorithm::pooling_avg_include_padding;
    if (pad_.h == 0 && pad_.w == 0) return dnnl::algorithm::pooling_avg_exclude_padding;
    return std::nullopt;
  }

  void forward_onednn(dnnl::algorithm algorithm, const Blob& bottom, Blob& top) {
    const auto source = native_desc(bottom.data);
    if (!forward_pd_ || source != forward_pd_->src_desc()) {
      const Shape kernel = {kernel_.h, kernel_.w}, stride = {stride_.h, stride_.w}, pad = {pad_.h, pad_.w},
                  no_dilation = {0, 0};
      const Shape pad_end = {std::max<int64_t>((output_.h - 1) * stride_.h + kernel_.h - size_.h - pad_.h, 0),
                             std::max<int64_t>((output_.w - 1) * stride_.w + kernel_.w - size_.w - pad_.w, 0)};
      forward_pd_.emplace(dnnl_engine(), dnnl::prop_kind::forward_training, algorithm, source, any_desc(top.shape()),
                          stride, kernel, no_dilation, pad, pad_end);
      forward_ = dnnl::pooling_forward(*forward_pd_);
      const dnnl::pooling_backward::primitive_desc backward_pd(dnnl_engine(), algorithm, forward_pd_->src_desc(),
                                                               forward_pd_->dst_desc(), stride, kernel, no_dilation,
                                                               pad, pad_end, *forward_pd_);
      backward_ = dnnl::pooling_backward(backward_pd);
    }
    std::unordered_map<int, dnnl::memory> arguments = {
        {DNNL_ARG_SRC, read_memory(bottom.data, forward_pd_->src_desc())},
        {DNNL_ARG_DST, overwrite_memory(top.data, forward_pd_->dst_desc())}};
    if (method_ == Method::kMax) arguments[DNNL_ARG_WORKSPACE] = workspace_.get(forward_pd_->workspace_desc());
    execute(forward_, arguments);
  }

  void backward_onednn(const Blob& top, Blob& bottom) {
    if (!forward_pd_) fail(ErrorKind::kState, "backward needs a forward pass before it");
    std::unordered_map<int, dnnl::memory> arguments = {
        {DNNL_ARG_DIFF_DST, read_memory(top.diff, forward_pd_->dst_desc())},
        {DNNL_ARG_DIFF_SRC, overwrite_memory(bottom.diff, forward_pd_->src_desc())}};
    if (method_ == Method::kMax) arguments[DNNL_ARG_WORKSPACE] = workspace_.get(forward_pd_->workspace_desc());
    execute(backward_, arguments);
  }

  void forward_max(const Blob& bottom, const Blobs& top) {
    chosen_.resize(top[0]->count());
    const float* x = bottom.data.read();
    float* y = top[0]->data.overwrite();
    float* mask = top.size() > 1 ? top[1]->data.overwrite() : nullptr;
    for_each_window([&](int64_t plane, int64_t output, const Window& window) {
      float best = -FLT_MAX;
      int64_t place = -1;
      for_each_place(window, [&](int64_t at) {
        if (x[plane + at] > best) best = x[plane + at], place = at;
      });
      y[output] = best;
      chosen_[output] = static_cast<int32_t>(place);
      if (mask != nullptr) mask[output] = static_cast<float>(place);
    });
  }

  void forward_average(const Blob& bottom, Blob& top) {
    const float* x = bottom.data.read();
    float* y = top.data.overwrite();
    for_each_window([&](int64_t plane, int64_t output, const Window& window) {
      float sum = 0.0f;
      for_each_place(window, [&](int64_t at) { sum += x[plane + at]; });
      y[output] = sum / static_cast<float>(window.area);
    });
  }

  void backward_average(const Blob& top, Blob& bottom) {
    const float* dy = top.diff.read();
    bottom.diff.zero();
    float* dx = bottom.diff.write();
    for_each_window([&](int64_t plane, int64_t output, const Window& window) {
      const float share = dy[output] / static_cast<float>(window.area);
      for_each_place(window, [&](int64_t at) { dx[plane + at] += share; });
    });
  }

  // Of a window's values, and of their squares.
  std::pair<float, float> sums(const float* plane, const Window& window) const {
    float sum = 0.0f, squares = 0.0f;
    for_each_place(window, [&](int64_t at) {
      sum += plane[at];
      squares += plane[at] * plane[at];
    });
    return {sum, squares};
  }

  void forward_stochastic(const Blob& bottom, Blob& top) {
    chosen_.resize(top.count());
    const float* x = bottom.data.read();
    float* y = top.data.overwrite();
    for_each_window([&](int64_t plane, int64_t output, const Window& window) {
      const auto [sum, squares] = sums(x + plane, window);
      if (phase() == Phase::kTest) {
        y[output] = sum > 0.0f ? squares / sum : 0.0f;
        return;
      }
      const float threshold = uniform(philox(random_key, output)[0]) * sum;
      float running = 0.0f;
      int64_t place = -1, last = -1;
      for_each_place(window, [&](int64_t at) {
        running += x[plane + at];
        if (place < 0 && running > threshold) place = at;
        last = at;
      });
      if (place < 0) place = last;  // all values 0, or rounding
      y[output] = place < 0 ? 0.0f : x[plane + place];
      chosen_[output] = static_cast<int32_t>(place);
    });
  }

  // MAX and STOCHASTIC in TRAIN: all of the gradient goes to the element that was taken.
  void backward_chosen(const Blob& top, Blob& bottom) {
    if (static_cast<int64_t>(chosen_.size()) != top.count()) {
      fail(ErrorKind::kState, "backward needs a forward pass before it");
    }
    const float* dy = top.diff.read();
    bottom.diff.zero();
    float* dx = bottom.diff.write();
    for_each_window([&](int64_t plane, int64_t output, const Window&) {
      if (chosen_[output] >= 0) dx[plane + chosen_[output]] += dy[output];
    });
  }

  // STOCHASTIC in TEST: y = sum of squares / sum, so dy/dx = (2 x - y) / sum.
  void backward_weighted(const Blob& top, Blob& bottom) {
    const float* x = bottom.data.read();
    const float* dy = top.diff.read();
    bottom.diff.zero();
    float* dx = bottom.diff.write();
    for_each_window([&](int64_t plane, int64_t output, const Window& window) {
      // y is computed again: a layer that works in place may have overwritten it.
      const auto [sum, squares] = sums(x + plane, window);
      if (sum <= 0.0f) return;
      const float y = squares / sum;
      for_each_place(window,
                     [&, sum = sum](int64_t at) { dx[plane + at] += dy[output] * (2.0f * x[plane + at] - y) / sum; });
    });
  }

  Method method_ = Method::kMax;
  bool round_up_ = true, global_ = false;
  Pair kernel_{}, stride_{}, pad_{}, size_{}, output_{};
  Shape shape_;  // of the bottom that the primitives are for

  std::optional<dnnl::pooling_forward::primitive_desc> forward_pd_;
  dnnl::pooling_forward forward_;
  dnnl::pooling_backward backward_;
  Workspace workspace_;
  std::vector<int32_t> chosen_;  // of each output: the place in its plane of the element taken, -1 for none
};

REGISTER_LAYER(PoolingLayer, LayerSpec("Pooling", "maximum or average of the windows of each channel")
                                 .messages({"pooling_param"})
                                 .positional({"pool", "kernel_size", "stride"})
                                 .extensions({"ceil_mode"})
                                 .tops(1, 2));

}  // namespace sparknet
