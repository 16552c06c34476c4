// Batch norm, residual sum, (leaky) ReLU and max-pooling of one channel, with first and second derivatives.
// Derivation: ../README.md. A channel of all images is contiguous enough to stay in cache between the two passes.
#pragma once

#include <cmath>

#include "cells.h"

namespace sparsemeta::SPARSEMETA_ISA {

// One pass over memory: the mean and the squares about it of a plane while it is in cache, then of the planes' means.
template <class T, int P>
void statistics(const Channel<T, P>& ch, const T* x, T& mean, T& rstd) {
  double first = 0, apart = 0, apart_squares = 0, squares = 0;
  for (std::int64_t n = 0; n < ch.s.images; ++n) {
    const T* a = ch.image(x, n);
    T sum = 0, part = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < ch.plane(); ++i) sum += a[i];
    const double m = static_cast<double>(sum) / static_cast<double>(ch.plane());
    const T about = static_cast<T>(m);
#pragma omp simd reduction(+ : part)
    for (std::int64_t i = 0; i < ch.plane(); ++i) part += (a[i] - about) * (a[i] - about);
    if (n == 0) first = m;
    squares += part, apart += m - first, apart_squares += (m - first) * (m - first);
  }
  const auto images = static_cast<double>(ch.s.images);
  squares += static_cast<double>(ch.plane()) * std::max(apart_squares - apart * apart / images, 0.0);
  mean = static_cast<T>(first + apart / images);
  rstd = static_cast<T>(1 / std::sqrt(squares / ch.count() + ch.s.eps));
}

// A normalisation without its bias: scale * x + shift.
template <class T>
struct Affine {
  T scale = 0, shift = 0;
};

template <class T, int P>
Affine<T> normalisation(const Channel<T, P>& ch, const NormTensors& t) {
  T &mean = at<T>(t.mean)[ch.c], &rstd = at<T>(t.rstd)[ch.c];
  if (!t.given) mean = 0, rstd = 1;
  if (ch.normalises) statistics(ch, at<const T>(t.x), mean, rstd);
  const T scale = at<const T>(t.weight)[ch.c] * rstd;
  return {scale, -mean * scale};
}

template <class T, int P>
void forward(const Channel<T, P>& ch, const NormTensors& t, const NormTensors* residual = nullptr) {
  using S = Simd<T>;
  using C = Cells<T, P>;
  const auto of_x = normalisation(ch, t);
  const auto of_r = residual ? normalisation(Channel<T, P>{ch.s, ch.c, !residual->given}, *residual) : Affine<T>{};
  const auto scale = S::broadcast(of_x.scale), shift = S::broadcast(at<const T>(t.bias)[ch.c] + of_x.shift + of_r.shift);
  const auto scale_r = S::broadcast(of_r.scale), slope = S::broadcast(static_cast<T>(ch.s.slope));
  for_cells(ch, [&](std::int64_t x, std::int64_t cell, std::int64_t n) {
    typename S::vec e[P * P], r[P * P] = {};
    C::load(at<const T>(t.x) + x, ch.s.width, n, e);
    if (residual) C::load(at<const T>(residual->x) + x, ch.s.width, n, r);
    for (int k = 0; k < P * P; ++k) e[k] = e[k] * scale + shift + (residual ? r[k] * scale_r : S::zero());
    const auto k = C::choose(e);
    const auto z = C::pick(e, k);
    const auto cut = z <= 0;
    const auto below = ch.s.slope == 0 ? S::zero() : z * slope;
    S::store_masked(at<T>(t.y) + cell, cut ? below : z, S::first(n));
    C::store_code(at<std::uint8_t>(t.code) + cell, cut ? k : k + passes, n);
  });
}

// out = constant + by_x * x + by_v * v + by_u * u, where u is the gradient at the selected elements and v may be null.
template <class T, int P>
void combine(const Channel<T, P>& ch, const NormTensors& t, const T* v, T* out, T constant, T by_x, T by_v, T by_u) {
  using S = Simd<T>;
  using C = Cells<T, P>;
  const T* x = at<const T>(t.x);
  const auto slope = S::broadcast(static_cast<T>(ch.s.slope)), factor = S::broadcast(by_u);
  const auto all = S::broadcast(constant), from_x = S::broadcast(by_x), from_v = S::broadcast(by_v);
  for_cells(ch, [&](std::int64_t first, std::int64_t cell, std::int64_t n) {
    const auto code = C::load_code(at<const std::uint8_t>(t.code) + cell, n);
    const auto u = C::gradient(at<const T>(t.g) + cell, code, slope, n) * factor;
    typename S::vec e[P * P], w[P * P] = {};
    C::load(x + first, ch.s.width, n, e);
    if (v) C::load(v + first, ch.s.width, n, w);
    for (int k = 0; k < P * P; ++k) e[k] = all + from_x * e[k] + from_v * w[k] + ((code & 3) == k ? u : S::zero());
    C::store(out + first, ch.s.width, n, e);
  });
  for_uncovered(ch, [&](std::int64_t i) { out[i] = constant + by_x * x[i] + (v ? by_v * v[i] : T{0}); });
}

template <class T>
struct Sums {
  T u = 0, ux = 0, uv = 0;  // over selected elements; x normalised
};

template <class T, int P>
Sums<T> selected_sums(const Channel<T, P>& ch, const NormTensors& t, const T* v) {
  using S = Simd<T>;
  using C = Cells<T, P>;
  const auto mean = S::broadcast(at<const T>(t.mean)[ch.c]), slope = S::broadcast(static_cast<T>(ch.s.slope));
  auto su = S::zero(), sux = S::zero(), suv = S::zero();
  for_cells(ch, [&](std::int64_t x, std::int64_t cell, std::int64_t n) {
    const auto code = C::load_code(at<const std::uint8_t>(t.code) + cell, n);
    const auto u = C::gradient(at<const T>(t.g) + cell, code, slope, n);
    typename S::vec e[P * P];
    C::load(at<const T>(t.x) + x, ch.s.width, n, e);
    su += u;
    sux += u * (C::pick(e, code) - mean);
    if (!v) return;
    C::load(v + x, ch.s.width, n, e);
    suv += u * C::pick(e, code);
  });
  return {C::sum(su), C::sum(sux) * at<const T>(t.rstd)[ch.c], C::sum(suv)};
}

// Whether the outputs tell the normalised x of the elements that a ReLU passes, (y - bias) / weight, without loss of digits.
template <class T, int P>
bool outputs_tell(const Channel<T, P>& ch, const NormTensors& t) {
  if (!t.y || !ch.normalises || ch.s.slope != 0) return false;
  return std::abs(at<const T>(t.weight)[ch.c]) > std::abs(at<const T>(t.bias)[ch.c]) / 8;
}

// Sums over the channel of u, of u times the output y, and of u times `other`, laid out as y, for the gradient g of y.
template <class T, int P>
Sums<T> output_sums(const Channel<T, P>& ch, const T* g, const T* y, const T* other) {
  double u = 0, uy = 0, uo = 0;
  for (std::int64_t n = 0; n < ch.s.images; ++n) {
    const auto at = ch.cell(n, 0), cells = ch.rows() * ch.columns();
    T pu = 0, puy = 0, puo = 0;
#pragma omp simd reduction(+ : pu, puy, puo)
    for (std::int64_t i = at; i < at + cells; ++i) {
      pu += y[i] > 0 ? g[i] : T{0};  // where y is zero, so are u and the tangent of y
      puy += g[i] * y[i];
      puo += g[i] * other[i];
    }
    u += pu, uy += puy, uo += puo;
  }
  return {static_cast<T>(u), static_cast<T>(uy), static_cast<T>(uo)};
}

// `selected_sums` without v, from a quarter of the data where that is possible.
template <class T, int P>
Sums<T> selected_sums_of(const Channel<T, P>& ch, const NormTensors& t) {
  if (!outputs_tell(ch, t)) return selected_sums<T, P>(ch, t, nullptr);
  const auto sums = output_sums(ch, at<const T>(t.g), at<const T>(t.y), at<const T>(t.y));
  return {sums.u, (sums.ux - at<const T>(t.bias)[ch.c] * sums.u) / at<const T>(t.weight)[ch.c], T{0}};
}

template <class T, int P>
void backward(const Channel<T, P>& ch, const NormTensors& t) {
  const T mean = at<const T>(t.mean)[ch.c], rstd = at<const T>(t.rstd)[ch.c], scale = at<const T>(t.weight)[ch.c] * rstd;
  const auto sums = selected_sums_of<T, P>(ch, t);
  at<T>(t.grad_weight)[ch.c] = sums.ux;
  at<T>(t.grad_bias)[ch.c] = sums.u;
  const T by_x = -scale * sums.ux * ch.inverse() * rstd;
  combine<T, P>(ch, t, nullptr, at<T>(t.grad_x), -scale * sums.u * ch.inverse() - by_x * mean, by_x, T{0}, scale);
}

// Means over the channel of v, and of v times the normalised x.
template <class T>
struct Means {
  T v = 0, vx = 0;
};

template <class T, int P>
Means<T> means(const Channel<T, P>& ch, const NormTensors& t, const T* v) {
  if (!ch.normalises) return {};
  const T mean = at<const T>(t.mean)[ch.c], rstd = at<const T>(t.rstd)[ch.c];
  double sv = 0, svx = 0;
  for (std::int64_t n = 0; n < ch.s.images; ++n) {
    const T *a = ch.image(at<const T>(t.x), n), *w = ch.image(v, n);
    T pv = 0, pvx = 0;
#pragma omp simd reduction(+ : pv, pvx)
    for (std::int64_t i = 0; i < ch.plane(); ++i) pv += w[i], pvx += w[i] * (a[i] - mean);
    sv += pv, svx += pvx;
  }
  return {static_cast<T>(sv) * ch.inverse(), static_cast<T>(svx) * rstd * ch.inverse()};
}

// out = S (weight rstd Q v + v_weight n + v_bias): what v, v_weight and v_bias come to at the selected elements.
template <class T, int P>
void select(const Channel<T, P>& ch, const NormTensors& t, const T* v, Means<T> mean_of, T v_weight, T v_bias, T* out) {
  using S = Simd<T>;
  using C = Cells<T, P>;
  const T mean = at<const T>(t.mean)[ch.c], rstd = at<const T>(t.rstd)[ch.c];
  const T to_v = at<const T>(t.weight)[ch.c] * rstd, to_x = (v_weight - to_v * mean_of.vx) * rstd;
  const auto by_v = S::broadcast(to_v), by_x = S::broadcast(to_x);
  const auto rest = S::broadcast(v_bias - to_v * mean_of.v - to_x * mean), slope = S::broadcast(static_cast<T>(ch.s.slope));
  for_cells(ch, [&](std::int64_t x, std::int64_t cell, std::int64_t n) {
    const auto code = C::load_code(at<const std::uint8_t>(t.code) + cell, n);
    typename S::vec e[P * P], w[P * P];
    C::load(at<const T>(t.x) + x, ch.s.width, n, e);
    C::load(v + x, ch.s.width, n, w);
    const auto sum = by_v * C::pick(w, code) + by_x * C::pick(e, code) + rest;
    S::store_masked(out + cell, (code & passes) != 0 ? sum : sum * slope, S::first(n));
  });
}

// The derivative of `backward` against (v, v_weight, v_bias), in g, x and weight.
template <class T, int P>
void second(const Channel<T, P>& ch, const NormTensors& t, const NormCotangents& c) {
  const T mean = at<const T>(t.mean)[ch.c], rstd = at<const T>(t.rstd)[ch.c], weight = at<const T>(t.weight)[ch.c];
  const T v_weight = at<const T>(c.weight)[ch.c], v_bias = at<const T>(c.bias)[ch.c], per = ch.inverse();
  const T* v = at<const T>(c.x);
  const auto of_v = means<T, P>(ch, t, v);
  const auto sums = selected_sums<T, P>(ch, t, v);
  const T mu = sums.u * per, mux = sums.ux * per, inner = sums.uv - ch.count() * (of_v.v * mu + of_v.vx * mux);  // <v, Q u>
  at<T>(t.grad_weight)[ch.c] = rstd * inner;

  const T k = weight * rstd * rstd;
  const T by_normalised = k * (2 * of_v.vx * mux - inner * per) - v_weight * rstd * mux, by_x = by_normalised * rstd;
  const T constant = k * (of_v.v * mux + mu * of_v.vx) - v_weight * rstd * mu - by_x * mean;
  combine<T, P>(ch, t, v, at<T>(t.grad_x), constant, by_x, -k * mux, v_weight * rstd - k * of_v.vx);
  select<T, P>(ch, t, v, of_v, v_weight, v_bias, at<T>(c.grad_g));
}

}  // namespace sparsemeta::SPARSEMETA_ISA
