// Blobs in files.
#pragma once

#include <string>
#include <vector>

namespace sparknet {

// The values of the BlobProto in a .binaryproto file (`data`, else `double_data`). Throws Error(kField) when it cannot
// be read or is none.
std::vector<float> read_blob_file(const std::string& path);

}  // namespace sparknet
