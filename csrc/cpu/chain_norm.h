// The tangents of batch norm, activation and pooling, and of their gradient, beside the values. Formulas: ../README.md.
#pragma once

#include "norm_act_pool.h"

namespace sparsemeta::SPARSEMETA_ISA {

// Addresses of what the tangents add to NormTensors: of x, weight and bias; of y; of g; and of the three gradients.
// mean_v, mean_vx [C] carry the means of x's tangent from the forward to the backward.
struct NormTangents {
  std::uintptr_t x, weight, bias, y, g, grad_x, grad_weight, grad_bias, mean_v, mean_vx;
};

template <class T, int P>
void forward_tangent(const Channel<T, P>& ch, const NormTensors& t, const NormTangents& d) {
  const auto of_v = means<T, P>(ch, t, at<const T>(d.x));
  at<T>(d.mean_v)[ch.c] = of_v.v;
  at<T>(d.mean_vx)[ch.c] = of_v.vx;
  select<T, P>(ch, t, at<const T>(d.x), of_v, at<const T>(d.weight)[ch.c], at<const T>(d.bias)[ch.c], at<T>(d.y));
}

// Coefficients of constant, x, its tangent v, and u and its tangent du at the selected elements.
template <class T>
struct Combination {
  T constant = 0, x = 0, v = 0, u = 0, du = 0;
};

// grad_x and its tangent in one pass.
template <class T, int P>
void combine_both(const Channel<T, P>& ch, const NormTensors& t, const NormTangents& d, const Combination<T>& p, const Combination<T>& q) {
  using S = Simd<T>;
  using C = Cells<T, P>;
  const T *x = at<const T>(t.x), *v = at<const T>(d.x);
  T *out = at<T>(t.grad_x), *tangent = at<T>(d.grad_x);
  const auto slope = S::broadcast(static_cast<T>(ch.s.slope));
  const auto constant = S::broadcast(p.constant), by_x = S::broadcast(p.x), by_u = S::broadcast(p.u);
  const auto constant_d = S::broadcast(q.constant), by_x_d = S::broadcast(q.x), by_v_d = S::broadcast(q.v);
  const auto by_u_d = S::broadcast(q.u), by_du_d = S::broadcast(q.du);
  for_cells(ch, [&](std::int64_t first, std::int64_t cell, std::int64_t n) {
    const auto code = C::load_code(at<const std::uint8_t>(t.code) + cell, n);
    const auto u = C::gradient(at<const T>(t.g) + cell, code, slope, n), du = C::gradient(at<const T>(d.g) + cell, code, slope, n);
    const auto to_value = by_u * u, to_tangent = by_u_d * u + by_du_d * du;
    typename S::vec e[P * P], w[P * P];
    C::load(x + first, ch.s.width, n, e);
    C::load(v + first, ch.s.width, n, w);
    for (int k = 0; k < P * P; ++k) {
      const auto selected = (code & 3) == k;
      w[k] = constant_d + by_x_d * e[k] + by_v_d * w[k] + (selected ? to_tangent : S::zero());
      e[k] = constant + by_x * e[k] + (selected ? to_value : S::zero());
    }
    C::store(out + first, ch.s.width, n, e);
    C::store(tangent + first, ch.s.width, n, w);
  });
  for_uncovered(ch, [&](std::int64_t i) {
    tangent[i] = q.constant + q.x * x[i] + q.v * v[i];
    out[i] = p.constant + p.x * x[i];
  });
}

template <class T>
struct BothSums {
  Sums<T> u, du;
};

// The same from the outputs and their tangent, which is weight rstd (v - mean_v - n mean_vx) + d_weight n + d_bias.
template <class T, int P>
BothSums<T> output_sums_of_both(const Channel<T, P>& ch, const NormTensors& t, const NormTangents& d) {
  const T weight = at<const T>(t.weight)[ch.c], bias = at<const T>(t.bias)[ch.c];
  auto u = output_sums(ch, at<const T>(t.g), at<const T>(t.y), at<const T>(d.y));
  auto du = output_sums(ch, at<const T>(d.g), at<const T>(t.y), at<const T>(t.y));
  u.ux = (u.ux - bias * u.u) / weight;
  du.ux = (du.ux - bias * du.u) / weight;
  u.uv = (u.uv - at<const T>(d.bias)[ch.c] * u.u - at<const T>(d.weight)[ch.c] * u.ux) / (weight * at<const T>(t.rstd)[ch.c]) +
         at<const T>(d.mean_v)[ch.c] * u.u + at<const T>(d.mean_vx)[ch.c] * u.ux;
  return {u, {du.u, du.ux, T{0}}};
}

// The sums of `selected_sums` for u and, but for that with v, for its tangent, while x is in cache.
template <class T, int P>
BothSums<T> selected_sums_of_both(const Channel<T, P>& ch, const NormTensors& t, const NormTangents& d) {
  using S = Simd<T>;
  using C = Cells<T, P>;
  if (outputs_tell(ch, t)) return output_sums_of_both(ch, t, d);
  const T *x = at<const T>(t.x), *v = at<const T>(d.x);
  const auto mean = S::broadcast(at<const T>(t.mean)[ch.c]), slope = S::broadcast(static_cast<T>(ch.s.slope));
  auto su = S::zero(), sux = S::zero(), suv = S::zero(), sdu = S::zero(), sdux = S::zero();
  for_cells(ch, [&](std::int64_t first, std::int64_t cell, std::int64_t n) {
    const auto code = C::load_code(at<const std::uint8_t>(t.code) + cell, n);
    const auto u = C::gradient(at<const T>(t.g) + cell, code, slope, n), du = C::gradient(at<const T>(d.g) + cell, code, slope, n);
    typename S::vec e[P * P];
    C::load(x + first, ch.s.width, n, e);
    const auto centred = C::pick(e, code) - mean;
    C::load(v + first, ch.s.width, n, e);
    su += u;
    sux += u * centred;
    suv += u * C::pick(e, code);
    sdu += du;
    sdux += du * centred;
  });
  const T rstd = at<const T>(t.rstd)[ch.c];
  return {{C::sum(su), C::sum(sux) * rstd, C::sum(suv)}, {C::sum(sdu), C::sum(sdux) * rstd, T{0}}};
}

// Gradient of x with its tangent, and the tangents of the gradients of weight and bias.
template <class T, int P>
void backward_with_tangent(const Channel<T, P>& ch, const NormTensors& t, const NormTangents& d) {
  const T mean = at<const T>(t.mean)[ch.c], rstd = at<const T>(t.rstd)[ch.c], weight = at<const T>(t.weight)[ch.c];
  const T d_weight = at<const T>(d.weight)[ch.c], mv = at<const T>(d.mean_v)[ch.c], mvx = at<const T>(d.mean_vx)[ch.c];
  const auto [u, du] = selected_sums_of_both<T, P>(ch, t, d);
  const T per = ch.inverse(), mu = u.u * per, mux = u.ux * per, inner = u.uv - ch.count() * (mv * mu + mvx * mux);
  at<T>(d.grad_weight)[ch.c] = du.ux + rstd * inner;
  at<T>(d.grad_bias)[ch.c] = du.u;

  const T scale = weight * rstd, k = scale * rstd;
  Combination<T> value, tangent;
  value.u = tangent.du = scale;
  value.x = -scale * mux * rstd;
  value.constant = -scale * mu - value.x * mean;
  tangent.u = d_weight * rstd - k * mvx;
  tangent.v = -k * mux;
  tangent.x = (k * (2 * mvx * mux - inner * per) - d_weight * rstd * mux - scale * du.ux * per) * rstd;
  tangent.constant = k * (mv * mux + mu * mvx) - d_weight * rstd * mu - scale * du.u * per - tangent.x * mean;
  combine_both<T, P>(ch, t, d, value, tangent);
}

}  // namespace sparsemeta::SPARSEMETA_ISA
