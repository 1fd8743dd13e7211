// Products of matrices of fixed extents that are computed again and again.
#pragma once

#include <cstdint>
#include <optional>

#include "core/dnnl_util.h"

namespace sparknet {

// c (m × n) = op(a) b, where op(a) is m × k and b k × n. Both are float32 or both bfloat16; c is float32.
class Product {
 public:
  struct Form {
    int64_t m, n, k;
    char a_op = 'N';      // 'T': a is k × m
    bool packed = false;  // b is what pack() was given last, else what run() is given
    bool biased = false;  // a bias for each column of c is added
    bool adds = false;    // c += in place of c =
    dnnl::memory::data_type type = dnnl::memory::data_type::f32;
    int threads = 1;  // with 1 it may run beside others in a parallel region
  };

  explicit Product(const Form& form);

  // Brings b into the layout that the product reads fastest; b_op 'T': it is n × k.
  void pack(char b_op, const float* b);
  void run(const void* a, const void* b, float* c, const float* bias = nullptr) const;

 private:
  Form form_;
  std::optional<dnnl::matmul::primitive_desc> pd_;
  dnnl::matmul primitive_;
  dnnl::memory packed_;
};

}  // namespace sparknet
