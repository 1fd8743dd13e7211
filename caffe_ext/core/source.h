// Caffe's data layers: types whose rows come from files.
//
// The files are read in Python (data_layers.py), which tells the tops' shapes when a net is built and writes a batch
// into them before each pass. Here they have the shapes that the message tells, all that the dry run knows, and a layer
// that names no source runs with what its caller writes into the tops.
#pragma once

#include "core/error.h"
#include "core/layer.h"
#include "core/transform.h"

namespace sparknet {

class SourceLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs& top) override {
    Augmentation(param().message("transform_param"), Phase::kTrain);  // throws for settings that make no sense
    for (size_t i = 0; i < top.size(); ++i) top[i]->reshape(shape_of(i, top.size()));
  }

  // Whoever fills the tops may have changed their shapes.
  void reshape(const Blobs&, const Blobs&) override {}

  void forward(const Blobs&, const Blobs& top) override {
    for (const Blob* blob : top) {
      if (blob->data.is_zero()) {
        fail(ErrorKind::kState, "nobody has fed its top `", blob->name,
             "`: name a source, or write the batch into the blob before each pass");
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
