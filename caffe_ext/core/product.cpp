#include "core/product.h"

#include <omp.h>

namespace sparknet {

namespace {

using dnnl::memory;

// What oneDNN makes meanwhile is for as many threads.
class ThreadsOf {
 public:
  explicit ThreadsOf(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~ThreadsOf() { omp_set_num_threads(before_); }
  ThreadsOf(const ThreadsOf&) = delete;
  ThreadsOf& operator=(const ThreadsOf&) = delete;

 private:
  const int before_;
};

memory::desc row_major(int64_t rows, int64_t columns, memory::data_type type) {
  return {{rows, columns}, type, memory::format_tag::ab};
}

memory view(const memory::desc& desc, const void* values) {
  return wrap_memory(desc, static_cast<const float*>(values));
}

}  // namespace

Product::Product(const Form& form) : form_(form) {
  const ThreadsOf threads(form.threads);
  dnnl::primitive_attr attributes;
  if (form.adds) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const memory::desc a = (form.a_op == 'T' ? transposed_desc : row_major)(form.m, form.k, form.type);
  const memory::desc b = form.packed ? any_desc({form.k, form.n}, form.type) : row_major(form.k, form.n, form.type);
  const memory::desc c = plain_desc({form.m, form.n});
  pd_ = form.biased ? dnnl::matmul::primitive_desc(dnnl_engine(), a, b, plain_desc({1, form.n}), c, attributes)
                    : dnnl::matmul::primitive_desc(dnnl_engine(), a, b, c, attributes);
  primitive_ = dnnl::matmul(*pd_);
}

void Product::pack(char b_op, const float* b) {
  const ThreadsOf threads(form_.threads);
  if (!packed_) packed_ = make_memory(pd_->weights_desc());
  const auto from = (b_op == 'T' ? transposed_desc : row_major)(form_.k, form_.n, memory::data_type::f32);
  reorder(wrap_memory(from, b), packed_);
}

void Product::run(const void* a, const void* b, float* c, const float* bias) const {
  std::unordered_map<int, memory> arguments = {
      {DNNL_ARG_SRC, view(pd_->src_desc(), a)},
      {DNNL_ARG_WEIGHTS, form_.packed ? packed_ : view(pd_->weights_desc(), b)},
      {DNNL_ARG_DST, wrap_memory(pd_->dst_desc(), c)},
  };
  if (form_.biased) arguments[DNNL_ARG_BIAS] = wrap_memory(pd_->bias_desc(), bias);
  execute(primitive_, arguments);
}

}  // namespace sparknet
