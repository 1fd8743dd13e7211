#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"
#include "core/window.h"

namespace sparknet {

// What each place of the kernel sees: C channels become C × kernel places, channels slowest, each with a value for
// every place of the window; 0 where that is in the padding. The shapes are Convolution's.
class Im2colLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs&) override {
    window_ = Window(param().message("convolution_param"), bottom[0]->shape());
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Shape& shape = bottom[0]->shape();
    window_.check_axes(shape);
    const Shape places = window_.places(shape);
    Shape result(shape.begin(), shape.begin() + window_.axis + 1);
    result[window_.axis] *= count(window_.kernel);
    result.insert(result.end(), places.begin(), places.end());
    top[0]->reshape(result);

    planes_ = count(shape, 0, window_.axis + 1);
    for (int i = 0; i < kAxes; ++i) {
      // Axes that are missing come first and have extent 1.
      const int own = i - (kAxes - window_.axes());
      along_[i] = own < 0 ? Along{} : Along{shape[window_.axis + 1 + own], places[own],      window_.kernel[own],
                                            window_.stride[own],           window_.pad[own], window_.dilation[own]};
    }
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->data.read();
    float* y = top[0]->data.overwrite();
    for_each_pair([=](int64_t at, int64_t column) { y[column] = at < 0 ? 0.0f : x[at]; });
  }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float* dy = top[0]->diff.read();
    bottom[0]->diff.zero();
    float* dx = bottom[0]->diff.write();
    for_each_pair([=](int64_t at, int64_t column) {
      if (at >= 0) dx[at] += dy[column];
    });
  }

 private:
  static constexpr int kAxes = 3;
  struct Along {
    int64_t size = 1, places = 1, kernel = 1, stride = 1, pad = 0, dilation = 1;

    // Where kernel place k of window w is; -1: in the padding.
    int64_t at(int64_t w, int64_t k) const {
      const int64_t place = w * stride - pad + k * dilation;
      return place < size ? std::max<int64_t>(place, -1) : -1;
    }
  };

  // Calls body(place in the bottom or -1, place in the top) for all places of the top; planes run in parallel.
  template <typename Body>
  void for_each_pair(const Body& body) const {
    const auto& [a, b, c] = along_;
    const int64_t plane = a.size * b.size * c.size;
    const int64_t columns = a.kernel * b.kernel * c.kernel * a.places * b.places * c.places;
    parallel_for(planes_, std::max<int64_t>(kElementGrain / std::max<int64_t>(columns, 1), 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t p = begin; p < end; ++p) one_plane(p * plane, p * columns, body);
                 });
  }

  template <typename Body>
  void one_plane(int64_t first, int64_t column, const Body& body) const {
    const auto& [a, b, c] = along_;
    for (int64_t k = 0; k < a.kernel * b.kernel * c.kernel; ++k) {
      const int64_t ka = k / (b.kernel * c.kernel), kb = k / c.kernel % b.kernel, kc = k % c.kernel;
      for (int64_t wa = 0; wa < a.places; ++wa) {
        for (int64_t wb = 0; wb < b.places; ++wb) {
          const int64_t at_a = a.at(wa, ka), at_b = b.at(wb, kb);
          const int64_t row = first + (at_a * b.size + at_b) * c.size;
          for (int64_t wc = 0; wc < c.places; ++wc) {
            const int64_t at_c = c.at(wc, kc);
            body(at_a < 0 || at_b < 0 || at_c < 0 ? -1 : row + at_c, column++);
          }
        }
      }
    }
  }

  Window window_;
  int64_t planes_ = 1;
  std::array<Along, kAxes> along_;
};

REGISTER_LAYER(Im2colLayer, LayerSpec("Im2col", "what each place of a convolution's kernel sees")
                                .messages({"convolution_param"})
                                .positional({"kernel_size"}));

}  // namespace sparknet
