// Batch norm, residual sum, (leaky) ReLU and max-pooling as one operation: all channels, for every type and pooling.
#include "norm_act_pool.h"

#include <omp.h>

namespace sparsemeta::SPARSEMETA_ISA {
namespace {

// Calls f for every channel, of the type and pooling.
template <class F>
void for_channels(const NormShape& s, bool normalises, F f) {
  const auto run = [&](auto zero, auto pool) {
    const bool large = s.images * s.channels * s.height * s.width > 32768;  // else waking a thread costs more
#pragma omp parallel for num_threads(large ? s.threads : 1) schedule(static)
    for (std::int64_t c = 0; c < s.channels; ++c) f(Channel<decltype(zero), pool>{s, c, normalises});
  };
  const auto pooled = [&](auto zero) {
    s.pool == 2 ? run(zero, std::integral_constant<int, 2>{}) : run(zero, std::integral_constant<int, 1>{});
  };
  s.f64 ? pooled(0.0) : pooled(0.0f);
}

template <class T, int P>
void gather(const Channel<T, P>& ch, const NormTensors& t) {
  using S = Simd<T>;
  using C = Cells<T, P>;
  const auto slope = S::broadcast(static_cast<T>(ch.s.slope));
  for_cells(ch, [&](std::int64_t x, std::int64_t cell, std::int64_t n) {
    const auto code = C::load_code(at<const std::uint8_t>(t.code) + cell, n);
    typename S::vec e[P * P];
    C::load(at<const T>(t.x) + x, ch.s.width, n, e);
    const auto z = C::pick(e, code);
    S::store_masked(at<T>(t.y) + cell, (code & passes) != 0 ? z : z * slope, S::first(n));
  });
}

template <class T, int P>
void scatter(const Channel<T, P>& ch, const NormTensors& t) {
  using S = Simd<T>;
  using C = Cells<T, P>;
  const auto slope = S::broadcast(static_cast<T>(ch.s.slope));
  for_cells(ch, [&](std::int64_t x, std::int64_t cell, std::int64_t n) {
    const auto code = C::load_code(at<const std::uint8_t>(t.code) + cell, n);
    const auto u = C::gradient(at<const T>(t.g) + cell, code, slope, n);
    typename S::vec e[P * P];
    for (int k = 0; k < P * P; ++k) e[k] = (code & 3) == k ? u : S::zero();
    C::store(at<T>(t.grad_x) + x, ch.s.width, n, e);
  });
  for_uncovered(ch, [&](std::int64_t i) { at<T>(t.grad_x)[i] = 0; });
}

}  // namespace

void norm_act_pool(const NormShape& s, const NormTensors& t, const NormTensors* residual) {
  for_channels(s, !t.given, [&](const auto& ch) { forward(ch, t, residual); });
}

void norm_act_pool_grad(const NormShape& s, const NormTensors& t) {
  for_channels(s, !t.given, [&](const auto& ch) { backward(ch, t); });
}

void norm_act_pool_grad_grad(const NormShape& s, const NormTensors& t, const NormCotangents& cotangents) {
  for_channels(s, !t.given, [&](const auto& ch) { second(ch, t, cotangents); });
}

void norm_act_pool_gather(const NormShape& s, const NormTensors& t) {
  for_channels(s, false, [&](const auto& ch) { gather(ch, t); });
}

void norm_act_pool_scatter(const NormShape& s, const NormTensors& t) {
  for_channels(s, false, [&](const auto& ch) { scatter(ch, t); });
}

}  // namespace sparsemeta::SPARSEMETA_ISA
