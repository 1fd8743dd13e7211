#include "core/blob_file.h"

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/error.h"

namespace sparknet {

namespace {

// As much of protobuf's wire format as a BlobProto takes: the engine does without libprotobuf.
class Wire {
 public:
  Wire(const char* begin, const char* end) : at_(begin), end_(end) {}

  bool done() const { return at_ == end_; }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(*take(1));
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw Malformed();
  }

  const char* take(uint64_t bytes) {
    if (bytes > static_cast<uint64_t>(end_ - at_)) throw Malformed();
    const char* from = at_;
    at_ += bytes;
    return from;
  }

  struct Malformed {};

 private:
  const char* at_;
  const char* end_;
};

enum WireType { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };

template <typename Number>
void append(const char* from, uint64_t bytes, std::vector<float>& to) {
  if (bytes % sizeof(Number) != 0) throw Wire::Malformed();
  for (uint64_t i = 0; i < bytes; i += sizeof(Number)) {
    Number value;
    std::memcpy(&value, from + i, sizeof(Number));
    to.push_back(static_cast<float>(value));
  }
}

std::vector<float> blob_values(const std::string& content) {
  constexpr uint64_t kData = 5, kDoubleData = 8;  // fields of BlobProto
  std::vector<float> values, doubles;
  Wire wire(content.data(), content.data() + content.size());
  while (!wire.done()) {
    const uint64_t key = wire.varint();
    const uint64_t field = key >> 3;
    const char* from = nullptr;
    uint64_t bytes = 0;
    switch (key & 7) {
      case kVarint: wire.varint(); break;
      case kFixed64: from = wire.take(bytes = 8); break;
      case kFixed32: from = wire.take(bytes = 4); break;
      case kLength:
        bytes = wire.varint();
        from = wire.take(bytes);
        break;
      default: throw Wire::Malformed();
    }
    // Packed or not, which the length tells.
    if (field == kData) append<float>(from, bytes, values);
    if (field == kDoubleData) append<double>(from, bytes, doubles);
  }
  return values.empty() ? doubles : values;
}

}  // namespace

std::vector<float> read_blob_file(const std::string& path) {
  // A device would be read for ever.
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    fail(ErrorKind::kData, "cannot read ", path, ": there is no such file");
  }
  std::ifstream file(path, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || file.bad()) fail(ErrorKind::kData, "cannot read ", path);
  try {
    std::vector<float> values = blob_values(content);
    if (!values.empty()) return values;
  } catch (const Wire::Malformed&) {
    fail(ErrorKind::kData, path, " is no .binaryproto, or is cut short");
  }
  fail(ErrorKind::kData, path, " is no .binaryproto with values");
}

}  // namespace sparknet
