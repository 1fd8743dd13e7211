#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/dnnl_util.h"
#include "core/error.h"
#include "core/layer.h"
#include "core/parallel.h"
#include "core/parts.h"

namespace sparknet {

// Puts its bottoms one after the other along `axis` (in old files: concat_dim). A single bottom is passed on as it is,
// data and gradient shared, as in Caffe. Bottoms in blocked layouts are joined in those where their channels fill whole
// blocks.
//
// Where each bottom is one piece of the top (all axes before `axis` are 1, as at a batch of 1), nothing is copied: the
// bottoms are written into the top's memory, and their gradients are read in that of the top's.
class ConcatLayer : public Layer {
 public:
  using Layer::Layer;

  void setup(const Blobs&, const Blobs&) override {
    const Message& own = param().message("concat_param");
    if (own.has("axis") && own.has("concat_dim")) fail(ErrorKind::kField, "give axis or concat_dim, not both");
  }

  void reshape(const Blobs& bottom, const Blobs& top) override {
    const Message& own = param().message("concat_param");
    const Shape& first = bottom[0]->shape();
    axis_ = own.has("concat_dim") ? canonical_axis(first, own.integer("concat_dim"), "concat_dim")
                                  : canonical_axis(first, own.integer("axis"));
    check_shapes(bottom);
    Shape joined = first;
    joined[axis_] = 0;
    for (const Blob* blob : bottom) joined[axis_] += blob->shape()[axis_];
    top[0]->reshape(joined);
    if (bottom.size() == 1) {
      top[0]->data.share(bottom[0]->data);
      top[0]->diff.share(bottom[0]->diff);
    } else {
      place_bottoms(bottom, *top[0]);
    }
  }

  void forward(const Blobs& bottom, const Blobs& top) override {
    if (bottom.size() == 1) return;
    const bool blocked = choose_layouts(bottom, *top[0]);
    if (parts_ && adopt_bottoms(bottom, *top[0])) return;
    if (!blocked) {
      copy_plain(bottom, *top[0]);
      return;
    }
    std::unordered_map<int, dnnl::memory> arguments;
    for (size_t i = 0; i < bottom.size(); ++i) {
      arguments[DNNL_ARG_MULTIPLE_SRC + static_cast<int>(i)] = read_memory(bottom[i]->data, from_[i]);
    }
    arguments[DNNL_ARG_DST] = overwrite_memory(top[0]->data, *to_);
    execute(join_, arguments);
  }

  bool keeps_bottom() const override { return false; }
  bool keeps_top() const override { return false; }

  void backward(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (bottom.size() == 1 || (parts_ && lend_gradient(*top[0], propagate_down, bottom))) return;
    if (!to_) {
      split_plain(*top[0], propagate_down, bottom);
      return;
    }
    const dnnl::memory dy = read_memory(top[0]->diff, *to_);
    dnnl::memory::dims offset(top[0]->shape().size(), 0);
    for (size_t i = 0; i < bottom.size(); ++i) {
      const Shape& shape = bottom[i]->shape();
      if (propagate_down[i]) {
        const auto part = to_->submemory_desc(shape, offset);
        reorder(wrap_memory(part, static_cast<const float*>(dy.get_data_handle())),
                overwrite_memory(bottom[i]->diff, from_[i]));
      }
      offset[axis_] += shape[axis_];
    }
  }

 private:
  static bool agree(const Shape& a, const Shape& b, int axis) {
    if (a.size() != b.size()) return false;
    for (int i = 0; i < static_cast<int>(a.size()); ++i) {
      if (i != axis && a[i] != b[i]) return false;
    }
    return true;
  }

  // Where not all agree, names the bottom that differs from what most of them have.
  void check_shapes(const Blobs& bottom) const {
    const auto like_first = [&](const Blob* blob) { return agree(bottom[0]->shape(), blob->shape(), axis_); };
    if (std::all_of(bottom.begin(), bottom.end(), like_first)) return;
    size_t model = 0;
    int64_t most = 0;
    for (size_t i = 0; i < bottom.size(); ++i) {
      const auto alike = std::count_if(bottom.begin(), bottom.end(), [&](const Blob* other) {
        return agree(bottom[i]->shape(), other->shape(), axis_);
      });
      if (alike > most) most = alike, model = i;
    }
    for (size_t i = 0; i < bottom.size(); ++i) {
      const Shape &wanted = bottom[model]->shape(), &shape = bottom[i]->shape();
      if (agree(wanted, shape, axis_)) continue;
      std::string list;
      for (const Blob* blob : bottom) {
        list += (list.empty() ? "`" : ", `") + blob->name + "` " + to_string(blob->shape());
      }
      std::string difference;
      if (shape.size() != wanted.size()) {
        difference = join("has ", shape.size(), " axes, `", bottom[model]->name, "` ", wanted.size());
      } else {
        for (int axis = 0; axis < static_cast<int>(shape.size()); ++axis) {
          if (axis == axis_ || shape[axis] == wanted[axis]) continue;
          difference += join(difference.empty() ? "has " : ", and ", shape[axis], " along axis ", axis, ", `",
                             bottom[model]->name, "` ", wanted[axis]);
        }
      }
      throw Error(ErrorKind::kShape,
                  join("bottoms that are joined along axis ", axis_, " must agree in all other axes: ", list, "; `",
                       bottom[i]->name, "` ", difference),
                  static_cast<int>(i));
    }
  }

  // Has the bottoms written one after the other, where the top is just that.
  void place_bottoms(const Blobs& bottom, Blob& top) {
    const bool pieces = count(top.shape(), 0, axis_) == 1 && top.count() > 0;
    if (!pieces && !parts_) return;
    std::vector<int64_t> floats;
    for (const Blob* blob : bottom) floats.push_back(blob->count());
    parts_ = pieces ? std::make_shared<Parts>(floats) : nullptr;
    top.data.consist_of(parts_);
    for (size_t i = 0; i < bottom.size(); ++i) {
      bottom[i]->data.prefer(pieces ? std::optional<Place>({parts_, i}) : std::nullopt);
    }
  }

  // For each bottom its layout in the top and the floats before it there; empty where they do not lie in the top as
  // they do by themselves.
  std::vector<std::pair<LayoutPtr, int64_t>> pieces(const Blobs& bottom, const Shape& joined) const {
    std::vector<std::pair<LayoutPtr, int64_t>> found;
    const auto whole = to_ ? *to_ : plain_desc(joined);
    dnnl::memory::dims offset(joined.size(), 0);
    for (size_t i = 0; i < bottom.size(); ++i) {
      const auto part = to_ ? from_[i] : plain_desc(bottom[i]->shape());
      const std::optional<int64_t> begin = begin_within(whole, part, offset);
      if (!begin) return {};
      found.emplace_back(layout_of(part), *begin);
      offset[axis_] += bottom[i]->shape()[axis_];
    }
    return found;
  }

  // Whether the bottoms were written into one memory, which now is the top's.
  bool adopt_bottoms(const Blobs& bottom, Blob& top) {
    const auto places = pieces(bottom, top.shape());
    if (places.empty()) return false;
    std::vector<const float*> begins;
    for (size_t i = 0; i < bottom.size(); ++i) {
      begins.push_back(bottom[i]->data.share_as(places[i].first).get());
      if (begins.back() != begins.front() + places[i].second) return false;
    }
    std::shared_ptr<float> whole = parts_->whole(begins);
    return whole && top.data.adopt(std::move(whole), to_ ? layout_of(*to_) : nullptr);
  }

  // Whether the bottoms' gradients are parts of the top's from here on.
  bool lend_gradient(const Blob& top, const std::vector<bool>& propagate_down, const Blobs& bottom) const {
    const auto places = pieces(bottom, top.shape());
    const std::shared_ptr<float> whole = top.diff.share_as(to_ ? layout_of(*to_) : nullptr);
    if (places.empty() || !whole) return false;
    for (size_t i = 0; i < bottom.size(); ++i) {
      if (!propagate_down[i]) continue;
      const auto& [layout, begin] = places[i];
      if (!bottom[i]->diff.adopt({whole, whole.get() + begin}, layout)) return false;
    }
    return true;
  }

  // Whether oneDNN is to join the bottoms, because some of them lie in blocked layouts; sets from_, to_ and join_.
  bool choose_layouts(const Blobs& bottom, const Blob& top) {
    std::vector<dnnl::memory::desc> from;
    bool blocked = false;
    for (const Blob* blob : bottom) {
      const LayoutPtr layout = blob->data.layout();
      // Values that are shared with a blob of other axes can lie in a layout of that one's.
      const bool own = layout && layout->desc.get_dims() == blob->shape();
      blocked |= own;
      from.push_back(own ? layout->desc : plain_desc(blob->shape()));
    }
    if (!blocked || top.count() == 0) {
      to_.reset();
      from_.clear();
      return false;
    }
    if (to_ && from == from_) return true;
    const dnnl::concat::primitive_desc description(dnnl_engine(), axis_, from);
    join_ = dnnl::concat(description);
    to_ = description.dst_desc();
    from_ = std::move(from);
    return true;
  }

  // Calls body(bottom, first float in a bottom, first float in the top, floats) for all contiguous pieces.
  template <typename Body>
  void for_pieces(const Blobs& bottom, const Shape& joined, const Body& body) const {
    const int64_t outer = count(joined, 0, axis_), inner = count(joined, axis_, static_cast<int>(joined.size()));
    const auto parts = static_cast<int64_t>(bottom.size());
    std::vector<int64_t> start(parts), size(parts);
    for (int64_t i = 0, at = 0; i < parts; ++i) {
      const Shape& shape = bottom[i]->shape();
      size[i] = count(shape, axis_, static_cast<int>(shape.size()));
      start[i] = at;
      at += size[i];
    }
    const int64_t grain = std::max<int64_t>(1, kElementGrain * parts / std::max<int64_t>(inner, 1));
    parallel_for(outer * parts, grain, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t row = k / parts, i = k % parts;
        body(i, row * size[i], row * inner + start[i], size[i]);
      }
    });
  }

  void copy_plain(const Blobs& bottom, Blob& top) const {
    std::vector<const float*> from;
    for (const Blob* blob : bottom) from.push_back(blob->data.read());
    float* to = top.data.overwrite();
    for_pieces(bottom, top.shape(), [&](int64_t i, int64_t at, int64_t to_at, int64_t floats) {
      std::memcpy(to + to_at, from[i] + at, floats * sizeof(float));
    });
  }

  void split_plain(const Blob& top, const std::vector<bool>& propagate_down, const Blobs& bottom) const {
    const float* from = top.diff.read();
    std::vector<float*> to;
    for (size_t i = 0; i < bottom.size(); ++i) to.push_back(propagate_down[i] ? bottom[i]->diff.overwrite() : nullptr);
    for_pieces(bottom, top.shape(), [&](int64_t i, int64_t at, int64_t from_at, int64_t floats) {
      if (to[i] != nullptr) std::memcpy(to[i] + at, from + from_at, floats * sizeof(float));
    });
  }

  int axis_ = 1;
  std::vector<dnnl::memory::desc> from_;
  std::optional<dnnl::memory::desc> to_;  // none: row-major, copied by hand
  dnnl::primitive join_;
  std::shared_ptr<Parts> parts_;  // null: the bottoms are no pieces of the top
};

REGISTER_LAYER(ConcatLayer,
               LayerSpec("Concat", "joins blobs along an axis").messages({"concat_param"}).bottoms(1, LayerSpec::kAny));

}  // namespace sparknet
