// Memory of several arrays that lie one after the other, and so are one array as well: where the bottoms of a Concat
// are written into such memory, its top need not be copied together.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace sparknet {

class Parts;

// One array of the several.
struct Place {
  std::shared_ptr<Parts> parts;
  size_t index = 0;

  // See Parts::take.
  std::shared_ptr<float> take(int64_t floats) const;
};

class Parts {
 public:
  // How many floats the arrays have.
  explicit Parts(const std::vector<int64_t>& floats);

  // Memory for an array of `floats`: beside that of the others, but where the array's own place there, or the whole, is
  // in use, in new memory for all. Null where it has another number of floats.
  std::shared_ptr<float> take(size_t index, int64_t floats);
  // The arrays as one, if it is they, in their order, that begin at `begins`; else null.
  std::shared_ptr<float> whole(const std::vector<const float*>& begins);
  // The whole is one of the arrays of `place`, and new memory is taken from there.
  void lie_in(const std::optional<Place>& place) { outer_ = place; }

  struct Block;

 private:
  std::vector<int64_t> begins_;  // one more than there are arrays
  std::optional<Place> outer_;
  std::weak_ptr<Block> block_;  // it lives as long as somebody uses any of it
};

// Whether anybody but the holder of `memory` uses any of it: as it is, as a part, or as the whole of which it is one.
bool in_use_elsewhere(const std::shared_ptr<float>& memory);

}  // namespace sparknet
