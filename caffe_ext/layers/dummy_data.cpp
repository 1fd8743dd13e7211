#include <algorithm>

#include "core/error.h"
#include "core/filler.h"
#include "core/layer.h"
#include "core/random.h"

namespace sparknet {

// Tops filled by the net itself. data_filler, shape, and each of the older num, channels, height, width stand once for
// all tops, or once for each; without data_filler tops are 0.
//
// As in Caffe constant tops are filled once, at the start, so what is written into them later stays; others are drawn
// anew in each forward pass.
class DummyDataLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs& top) override {
    const Message& fields = param().message("dummy_data_param");
    const size_t tops = top.size();
    const auto check_times = [&](const char* field, size_t times, bool may_be_absent) {
      if (times == 1 || times == tops || (may_be_absent && times == 0)) return;
      fail(ErrorKind::kField, field, " must be given once, or once for each of the ", tops, " tops; it is given ",
           times, " times");
    };
    check_times("data_filler", fields.messages("data_filler").size(), true);
    const bool older = std::any_of(std::begin(kSizes), std::end(kSizes), [&](auto name) { return fields.has(name); });
    const auto& shapes = fields.messages("shape");
    if (older && !shapes.empty()) fail(ErrorKind::kField, "shape and num/channels/height/width exclude each other");
    if (older) {
      for (const char* name : kSizes) check_times(name, fields.integers(name).size(), false);
    } else {
      check_times("shape", shapes.size(), false);
    }
    for (size_t i = 0; i < tops; ++i) {
      Shape shape;
      if (older) {
        for (const char* name : kSizes) shape.push_back(of_top(fields.integers(name), i));
      } else {
        shape = of_top(shapes, i).integers("dim");
      }
      check_filler(filler(i), shape);
      top[i]->reshape(shape);
    }
  }

  // Nothing that it depends on can change.
  void reshape(const Blobs&, const Blobs&) override {}

  void begin(const Blobs& top) override { fill_tops(top, true); }
  void forward(const Blobs&, const Blobs& top) override { fill_tops(top, false); }
  void backward(const Blobs&, const std::vector<bool>&, const Blobs&) override {}

 private:
  static constexpr const char* kSizes[] = {"num", "channels", "height", "width"};

  template <typename Value>
  static const Value& of_top(const std::vector<Value>& values, size_t i) {
    return values[values.size() == 1 ? 0 : i];
  }

  Message filler(size_t i) const {
    const Message& fields = param().message("dummy_data_param");
    const auto& fillers = fields.messages("data_filler");
    return fillers.empty() ? fields.empty("data_filler") : of_top(fillers, i);
  }

  void fill_tops(const Blobs& top, bool constants) {
    for (size_t i = 0; i < top.size(); ++i) {
      const Message how = filler(i);
      if ((how.text("type") == "constant") == constants) fill(top[i]->data, how, mix(random_key, i));
    }
  }
};

REGISTER_LAYER(DummyDataLayer, LayerSpec("DummyData", "tops filled with constants or random numbers")
                                   .messages({"dummy_data_param"})
                                   .positional({"shape"})
                                   .bottoms(0, 0)
                                   .tops(1, LayerSpec::kAny));

}  // namespace sparknet
