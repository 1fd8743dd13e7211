#include "core/window.h"

#include <limits>
#include <string>

#include "core/error.h"

namespace sparknet {

namespace {

constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

// A setting that has one value for each spatial axis: from the repeated `field` (one value for all axes, or one for
// each; `preset` where there is none) or from `field_h` and `field_w`, which need two spatial axes and exclude the
// former.
Shape per_axis(const Message& param, const std::string& field, const std::string& field_h, const std::string& field_w,
               int axes, int64_t preset, int64_t least) {
  Shape values;
  const Shape& given = param.integers(field);
  if (!field_h.empty() && (param.has(field_h) || param.has(field_w))) {
    if (!given.empty()) {
      fail(ErrorKind::kField, field, " and ", field_h, "/", field_w, " exclude each other: keep one form");
    }
    if (axes != 2) {
      fail(ErrorKind::kField, field_h, " and ", field_w, " need a bottom with 2 spatial axes, this one has ", axes,
           ": give ", field, " for each axis");
    }
    for (const std::string& name : {field_h, field_w}) {
      if (least > 0 && !param.has(name)) {
        fail(ErrorKind::kField, name, " is missing: ", field_h, " and ", field_w, " go together");
      }
      values.push_back(param.integer(name));
    }
  } else if (given.empty()) {
    values.assign(axes, preset);
  } else if (given.size() == 1) {
    values.assign(axes, given.front());
  } else if (static_cast<int>(given.size()) == axes) {
    values = given;
  } else {
    fail(ErrorKind::kField, field, " has ", given.size(), " values, the bottom ", axes,
         " spatial axes: give one for all or one for each");
  }
  for (const int64_t value : values) {
    if (value < least) fail(ErrorKind::kField, field, " must be at least ", least, ", not ", value);
    // Caffe's numbers are of 32 bits; products of two of them fit in 64.
    if (value > kMost) fail(ErrorKind::kField, field, " must be at most ", kMost, ", not ", value);
  }
  return values;
}

}  // namespace

Window::Window(const Message& fields, const Shape& bottom) : axis(canonical_axis(bottom, fields.integer("axis"))) {
  const int spatial = static_cast<int>(bottom.size()) - axis - 1;
  if (spatial > 3) {
    fail(ErrorKind::kShape, "at most 3 spatial axes are possible, the bottom (", to_string(bottom), ") has ", spatial,
         " after axis ", axis);
  }
  if (!fields.has("kernel_h") && !fields.has("kernel_w") && fields.integers("kernel_size").empty() && spatial > 0) {
    fail(ErrorKind::kField, "kernel_size is missing");
  }
  kernel = per_axis(fields, "kernel_size", "kernel_h", "kernel_w", spatial, 1, 1);
  stride = per_axis(fields, "stride", "stride_h", "stride_w", spatial, 1, 1);
  pad = per_axis(fields, "pad", "pad_h", "pad_w", spatial, 0, 0);
  dilation = per_axis(fields, "dilation", "", "", spatial, 1, 1);
}

Shape Window::reach() const {
  Shape covered;
  for (int i = 0; i < axes(); ++i) covered.push_back(dilation[i] * (kernel[i] - 1) + 1);
  return covered;
}

void Window::check_axes(const Shape& bottom) const {
  if (static_cast<int>(bottom.size()) == axis + 1 + axes()) return;
  fail(ErrorKind::kShape, "the bottom must keep its ", axis + 1 + axes(), " axes, it has now ", to_string(bottom));
}

Shape Window::places(const Shape& bottom) const {
  const Shape covered = reach();
  Shape padded, result;
  for (int i = 0; i < axes(); ++i) {
    padded.push_back(bottom[axis + 1 + i] + 2 * pad[i]);
    result.push_back((padded[i] - covered[i]) / stride[i] + 1);
  }
  for (int i = 0; i < axes(); ++i) {
    if (covered[i] <= padded[i]) continue;
    fail(ErrorKind::kShape, "kernel ", to_string(kernel),
         covered == kernel ? "" : join(" (dilated ", to_string(covered), ")"), " is larger than the padded input ",
         to_string(padded));
  }
  return result;
}

Shape Window::spread(const Shape& bottom) const {
  const Shape covered = reach();
  Shape result;
  for (int i = 0; i < axes(); ++i) {
    const int64_t size = bottom[axis + 1 + i];
    result.push_back(stride[i] * (size - 1) + covered[i] - 2 * pad[i]);
    if (size < 1 || result[i] < 1) {
      fail(ErrorKind::kShape, "nothing is left of spatial axis ", i, ": ", size, " windows of ", covered[i],
           " at stride ", stride[i], " less padding ", pad[i], " on both sides");
    }
  }
  return result;
}

}  // namespace sparknet
