#include "core/error.h"
#include "core/layer.h"
#include "core/script.h"

namespace sparknet {

namespace {

ScriptHost& host() {
  static ScriptHost instance;
  return instance;
}

// Hands the exception of a call on, to be raised again where Python called the engine.
void check(const Outcome& outcome) {
  if (!outcome.cause) return;
  Error error(ErrorKind::kCode, outcome.reason);
  error.set_cause(outcome.cause);
  throw error;
}

// Views that are kept between calls show what the layers before have written.
void settle(const Blob& blob) {
  blob.data.settle();
  blob.diff.settle();
}

// Values that were given away after the last pass (Tensor::drop) are zeros again, into which Python may write.
void renew(Tensor& tensor) {
  if (tensor.is_zero()) tensor.zero();
}

}  // namespace

// A layer of the user's own, a class written in Python. Its parameters start with what its setup writes into them, its
// reshape runs before every forward pass, as in Caffe: some load their rows there.
class PythonLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs& bottom, const Blobs& top) override {
    if (host().create == nullptr) fail(ErrorKind::kState, "layers in Python need the engine's binding");
    check(host().create(param(), phase(), script_));
    run(ScriptVerb::kSetup, bottom, top);
    for (const auto& blob : host().params(script_.get())) {
      params.push_back(blob);
      fillers.push_back(param().empty("scale_param").empty("filler"));
      param_gradient.push_back(true);
    }
  }

  // It comes before every forward pass, so tops are renewed for both.
  void reshape(const Blobs& bottom, const Blobs& top) override {
    for (Blob* blob : top) renew(blob->data);
    run(ScriptVerb::kReshape, bottom, top);
  }

  void forward(const Blobs& bottom, const Blobs& top) override { run(ScriptVerb::kForward, bottom, top); }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (propagate_down[i]) renew(bottom[i]->diff);
    }
    run(ScriptVerb::kBackward, bottom, top, propagate_down);
  }

  void* script() const { return script_.get(); }

 private:
  void run(ScriptVerb verb, const Blobs& bottom, const Blobs& top, const std::vector<bool>& propagate_down = {}) const {
    for (const Blob* blob : bottom) settle(*blob);
    for (const Blob* blob : top) settle(*blob);
    for (const auto& blob : params) settle(*blob);
    check(host().run(script_.get(), verb, bottom, top, propagate_down));
  }

  std::shared_ptr<void> script_;
};

void set_script_host(const ScriptHost& calls) { host() = calls; }

void* script_of(const Layer& layer) {
  const auto* python = dynamic_cast<const PythonLayer*>(&layer);
  return python == nullptr ? nullptr : python->script();
}

REGISTER_LAYER(PythonLayer, LayerSpec("Python", "a layer of your own, a class written in Python")
                                .messages({"python_param"})
                                .positional({"module", "layer", "param_str"})
                                .bottoms(0, LayerSpec::kAny)
                                .tops(0, LayerSpec::kAny)
                                .in_place()
                                .most(LayerSpec::kAny)
                                .opaque());

}  // namespace sparknet
