// Caffe's data layers: types whose rows come from files there.
//
// The engine reads no files. It knows the tops' shapes as far as the message tells them and runs with what the caller
// writes into the tops; the compiler turns these layers into Input layers that the training loop feeds, unless told to
// keep them.
#pragma once

#include "core/error.h"
#include "core/layer.h"

namespace sparknet {

class SourceLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs& top) override {
    for (size_t i = 0; i < top.size(); ++i) top[i]->reshape(shape_of(i, top.size()));
  }

  // Whoever fills the tops may have changed their shapes.
  void reshape(const Blobs&, const Blobs&) override {}

  void forward(const Blobs&, const Blobs& top) override {
    for (const Blob* blob : top) {
      if (blob->data.is_zero()) {
        fail(ErrorKind::kState, "nobody has fed its top `", blob->name,
             "`: the engine itself reads no files; write the batch into the blob, or use an Input layer");
      }
    }
  }

  void backward(const Blobs&, const std::vector<bool>&, const Blobs&) override {}

 protected:
  // Of a shape that the message does not tell.
  static Shape unknown() { return {0}; }

  // The shape of top `index` of `tops`, or unknown().
  virtual Shape shape_of(size_t index, size_t tops) const = 0;

  // A field that must be at least 1.
  static int64_t positive(const Message& fields, const char* name) {
    const int64_t value = fields.integer(name);
    if (value < 1) fail(ErrorKind::kField, name, " must be at least 1");
    return value;
  }
};

}  // namespace sparknet
