// Batch norm on batch statistics, (leaky) ReLU and max-pooling as one operation: all channels, for every type and pooling.
#include "norm_act_pool.h"

#include <omp.h>

namespace sparsemeta::SPARSEMETA_ISA {
namespace {

template <class F>
void for_channels(const NormShape& s, F f) {
  const bool large = s.images * s.channels * s.height * s.width > 32768;
#pragma omp parallel for num_threads(large ? s.threads : 1) schedule(static)
  for (std::int64_t c = 0; c < s.channels; ++c) f(c);
}

// Calls f with a value of the scalar type and the pooling as a constant.
template <class F>
void dispatch(const NormShape& s, F f) {
  const auto pooled = [&](auto zero) {
    s.pool == 2 ? f(zero, std::integral_constant<int, 2>{}) : f(zero, std::integral_constant<int, 1>{});
  };
  s.f64 ? pooled(0.0) : pooled(0.0f);
}

}  // namespace

void norm_act_pool(const NormShape& s, const NormTensors& t) {
  dispatch(s, [&](auto zero, auto pool) {
    for_channels(s, [&](std::int64_t c) { forward(Channel<decltype(zero), pool>{s, c}, t); });
  });
}

void norm_act_pool_grad(const NormShape& s, const NormTensors& t) {
  dispatch(s, [&](auto zero, auto pool) {
    for_channels(s, [&](std::int64_t c) { backward(Channel<decltype(zero), pool>{s, c}, t); });
  });
}

void norm_act_pool_grad_grad(const NormShape& s, const NormTensors& t, const NormCotangents& cotangents) {
  dispatch(s, [&](auto zero, auto pool) {
    for_channels(s, [&](std::int64_t c) { second(Channel<decltype(zero), pool>{s, c}, t, cotangents); });
  });
}

}  // namespace sparsemeta::SPARSEMETA_ISA
