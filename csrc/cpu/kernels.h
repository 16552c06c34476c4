// Every kernel, once for each instruction set; module.cpp picks the set at run time.
#pragma once

#include <cstdint>

#include "../chain.h"
#include "../conv_plan.h"

namespace sparsemeta {

// A tensor [task, image, channel, row, column] by address and strides in elements.
struct View {
  std::uintptr_t data;
  std::int64_t task, image, channel, row, column;
};

// values [task, nnz]; a stride of 0 shares one row between all tasks.
struct Rows {
  std::uintptr_t data;
  std::int64_t task;
};

struct Work {
  std::int64_t tasks, images;
  bool f64;
  int threads;
};

struct NormShape {
  std::int64_t images, channels, height, width, pool;  // pool: 1 (none) or 2
  double eps, slope;
  bool f64;
  int threads;
};

// Addresses of contiguous tensors: x, grad_x [N, C, H, W]; y, g, code [N, C, H / pool, W / pool]; the rest [C].
struct NormTensors {
  std::uintptr_t x, weight, bias, y, mean, rstd, code, g, grad_x, grad_weight, grad_bias;
  bool given = false;  // mean and rstd are constants; otherwise they are those of x
};

// What comes back against grad_x, grad_weight and grad_bias, and where the derivative in g goes.
struct NormCotangents {
  std::uintptr_t x, weight, bias, grad_g;
};

#define SPARSEMETA_KERNELS(isa)                                                                                        \
  namespace isa {                                                                                                      \
  Machine machine(std::int64_t first_level_bytes, std::int64_t second_level_bytes, bool generate);                     \
  void masked_conv2d(const ConvPlan&, View x, Rows values, Rows bias, View y, const Work&);                            \
  void masked_conv2d_input_grad(const ConvPlan&, View g, Rows values, View x, const Work&);                            \
  void masked_conv2d_weight_grad(const ConvPlan&, View g, View x, Rows values, const Work&);                           \
  /* out[i] = p[i] - lr[i] * g[i] for `count` parameters of n[i] contiguous elements; p[i] == 0 stands for zeros. */   \
  void inner_update(const std::uintptr_t* p, const std::uintptr_t* g, const std::uintptr_t* out,                       \
                    const std::int64_t* n, const double* lr, std::int64_t count, bool f64);                            \
  /* Of the residual, which is normalised and added ahead of the activation, only x, weight, mean, rstd and given. */  \
  void norm_act_pool(const NormShape&, const NormTensors&, const NormTensors* residual);                               \
  void norm_act_pool_grad(const NormShape&, const NormTensors&);                                                       \
  void norm_act_pool_grad_grad(const NormShape&, const NormTensors&, const NormCotangents&);                           \
  /* What the outputs select of x, into y; and the adjoint of that, from g into grad_x. */                             \
  void norm_act_pool_gather(const NormShape&, const NormTensors&);                                                     \
  void norm_act_pool_scatter(const NormShape&, const NormTensors&);                                                    \
  void run_chain(Chain&, const ChainCall&);                                                                            \
  }

SPARSEMETA_KERNELS(baseline)
#if defined(__x86_64__)
SPARSEMETA_KERNELS(avx2)
SPARSEMETA_KERNELS(avx512)
#endif
#undef SPARSEMETA_KERNELS

}  // namespace sparsemeta
