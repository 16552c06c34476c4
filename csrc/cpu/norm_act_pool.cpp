// Batch norm on batch statistics, (leaky) ReLU and max-pooling as one operation, with first and second derivatives.
// Derivation: ../README.md. A channel of all images is contiguous enough to stay in cache between the two passes.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels.h"
#include "simd.h"

namespace sparsemeta::SPARSEMETA_ISA {
namespace {

template <class T>
T* at(std::uintptr_t address) { return reinterpret_cast<T*>(address); }

// One channel: its planes of size height * width in every image, and pooled cells of P x P elements.
template <class T, int P>
struct Channel {
  const NormShape& s;
  std::int64_t c;

  std::int64_t plane() const { return s.height * s.width; }
  std::int64_t rows() const { return s.height / P; }
  std::int64_t columns() const { return s.width / P; }
  T* image(T* x, std::int64_t n) const { return x + (n * s.channels + c) * plane(); }
  const T* image(const T* x, std::int64_t n) const { return x + (n * s.channels + c) * plane(); }
  std::int64_t cell(std::int64_t n, std::int64_t row) const { return ((n * s.channels + c) * rows() + row) * columns(); }
  T count() const { return static_cast<T>(s.images * plane()); }
};

// Which element of its cell the maximum is, in bits 0 and 1, and in bit 2 whether the activation passes it whole.
constexpr int passes = 4;

// As many neighbouring cells as a vector has lanes, of which the first n exist.
template <class T, int P>
struct Cells {
  using S = Simd<T>;
  using vec = typename S::vec;
  using ivec = typename S::ivec;
  typedef std::uint8_t bytes __attribute__((vector_size(S::lanes)));
  static constexpr int lanes = S::lanes;

  // Element k of every cell whose first row starts at a.
  static void load(const T* a, std::int64_t width, std::int64_t n, vec (&e)[P * P]) {
    if constexpr (P == 1) e[0] = S::load_masked(a, S::first(n));
    else
      for (int row = 0; row < 2; ++row) {
        const vec low = S::load_masked(a + row * width, S::first(2 * n));
        const vec high = S::load_masked(a + row * width + lanes, S::first(std::max<std::int64_t>(2 * n - lanes, 0)));
        e[2 * row] = S::shuffle(low, high, evens(0));
        e[2 * row + 1] = S::shuffle(low, high, evens(1));
      }
  }
  static void store(T* a, std::int64_t width, std::int64_t n, const vec (&e)[P * P]) {
    if constexpr (P == 1) S::store_masked(a, e[0], S::first(n));
    else
      for (int row = 0; row < 2; ++row) {
        S::store_masked(a + row * width, S::shuffle(e[2 * row], e[2 * row + 1], woven(0)), S::first(2 * n));
        if (2 * n > lanes)
          S::store_masked(a + row * width + lanes, S::shuffle(e[2 * row], e[2 * row + 1], woven(lanes / 2)), S::first(2 * n - lanes));
      }
  }
  static vec pick(const vec (&e)[P * P], ivec code) {
    if constexpr (P == 1) return e[0];
    else {
      const vec top = (code & 1) != 0 ? e[1] : e[0], bottom = (code & 1) != 0 ? e[3] : e[2];
      return (code & 2) != 0 ? bottom : top;
    }
  }
  static ivec load_code(const std::uint8_t* from, std::int64_t n) {
    bytes b{};
    std::memcpy(&b, from, static_cast<std::size_t>(std::min<std::int64_t>(n, lanes)));
    return __builtin_convertvector(b, ivec);
  }
  static void store_code(std::uint8_t* to, ivec code, std::int64_t n) {
    const bytes b = __builtin_convertvector(code, bytes);
    std::memcpy(to, &b, static_cast<std::size_t>(std::min<std::int64_t>(n, lanes)));
  }
  // The gradient that reaches the selected elements.
  static vec gradient(const T* g, ivec code, vec slope, std::int64_t n) {
    const vec given = S::load_masked(g, S::first(n));
    return (code & passes) != 0 ? given : given * slope;
  }
  static T sum(vec v) {
    T total = 0;
    for (int i = 0; i < lanes; ++i) total += v[i];
    return total;
  }

 private:
  static ivec evens(int from) {
    ivec i;
    for (int k = 0; k < lanes; ++k) i[k] = 2 * k + from;
    return i;
  }
  static ivec woven(int from) {
    ivec i;
    for (int k = 0; k < lanes; ++k) i[k] = from + k / 2 + (k % 2) * lanes;
    return i;
  }
};

// Calls f(offset of the first element, offset of the first cell, cells left in the row) for every vector of cells.
template <class T, int P, class F>
void for_cells(const Channel<T, P>& ch, F f) {
  for (std::int64_t n = 0; n < ch.s.images; ++n)
    for (std::int64_t row = 0; row < ch.rows(); ++row)
      for (std::int64_t j = 0; j < ch.columns(); j += Simd<T>::lanes)
        f(n * ch.s.channels * ch.plane() + ch.c * ch.plane() + row * P * ch.s.width + P * j, ch.cell(n, row) + j, ch.columns() - j);
}

template <class T, int P>
void statistics(const Channel<T, P>& ch, const T* x, T& mean, T& rstd) {
  double sum = 0, squares = 0;
  for (std::int64_t n = 0; n < ch.s.images; ++n) {
    const T* a = ch.image(x, n);
    T part = 0;
#pragma omp simd reduction(+ : part)
    for (std::int64_t i = 0; i < ch.plane(); ++i) part += a[i];
    sum += part;
  }
  const T m = static_cast<T>(sum / ch.count());
  for (std::int64_t n = 0; n < ch.s.images; ++n) {
    const T* a = ch.image(x, n);
    T part = 0;
#pragma omp simd reduction(+ : part)
    for (std::int64_t i = 0; i < ch.plane(); ++i) part += (a[i] - m) * (a[i] - m);
    squares += part;
  }
  mean = m;
  rstd = static_cast<T>(1 / std::sqrt(squares / ch.count() + ch.s.eps));
}

template <class T, int P>
void forward(const Channel<T, P>& ch, const NormTensors& t) {
  using S = Simd<T>;
  using C = Cells<T, P>;
  T mean, rstd;
  statistics(ch, at<const T>(t.x), mean, rstd);
  at<T>(t.mean)[ch.c] = mean;
  at<T>(t.rstd)[ch.c] = rstd;
  const T factor = at<const T>(t.weight)[ch.c] * rstd;
  const auto scale = S::broadcast(factor), shift = S::broadcast(at<const T>(t.bias)[ch.c] - mean * factor);
  const auto slope = S::broadcast(static_cast<T>(ch.s.slope));
  for_cells(ch, [&](std::int64_t x, std::int64_t cell, std::int64_t n) {
    typename S::vec e[P * P];
    C::load(at<const T>(t.x) + x, ch.s.width, n, e);
    auto z = e[0] * scale + shift;
    typename S::ivec k{};
    if constexpr (P == 2) {  // the first of equal elements, as F.max_pool2d
      const auto z1 = e[1] * scale + shift, z2 = e[2] * scale + shift, z3 = e[3] * scale + shift;
      const auto low = z3 > z2 ? z3 : z2;
      k = z1 > z ? k + 1 : k;
      z = z1 > z ? z1 : z;
      k = low > z ? (z3 > z2 ? k * 0 + 3 : k * 0 + 2) : k;
      z = low > z ? low : z;
    }
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
  const auto outside = [&](std::int64_t i) { out[i] = constant + by_x * x[i] + (v ? by_v * v[i] : T{0}); };
  for (std::int64_t n = 0; n < ch.s.images; ++n) {  // the last row and column, where the size is odd
    const auto plane = (n * ch.s.channels + ch.c) * ch.plane();
    for (auto row = P * ch.rows(); row < ch.s.height; ++row)
      for (std::int64_t j = 0; j < ch.s.width; ++j) outside(plane + row * ch.s.width + j);
    for (auto j = P * ch.columns(); j < ch.s.width; ++j)
      for (std::int64_t row = 0; row < P * ch.rows(); ++row) outside(plane + row * ch.s.width + j);
  }
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

template <class T, int P>
void backward(const Channel<T, P>& ch, const NormTensors& t) {
  const T mean = at<const T>(t.mean)[ch.c], rstd = at<const T>(t.rstd)[ch.c], scale = at<const T>(t.weight)[ch.c] * rstd;
  const auto sums = selected_sums<T, P>(ch, t, nullptr);
  at<T>(t.grad_weight)[ch.c] = sums.ux;
  at<T>(t.grad_bias)[ch.c] = sums.u;
  const T by_x = -scale * sums.ux / ch.count() * rstd;
  combine<T, P>(ch, t, nullptr, at<T>(t.grad_x), -scale * sums.u / ch.count() - by_x * mean, by_x, T{0}, scale);
}

// The derivative of `backward` against (v, v_weight, v_bias), in g, x and weight.
template <class T, int P>
void second(const Channel<T, P>& ch, const NormTensors& t, const NormCotangents& c) {
  const T mean = at<const T>(t.mean)[ch.c], rstd = at<const T>(t.rstd)[ch.c], weight = at<const T>(t.weight)[ch.c];
  const T v_weight = at<const T>(c.weight)[ch.c], v_bias = at<const T>(c.bias)[ch.c], m = ch.count();
  const T* v = at<const T>(c.x);
  double sv = 0, svx = 0;
  for (std::int64_t n = 0; n < ch.s.images; ++n) {
    const T *a = ch.image(at<const T>(t.x), n), *w = ch.image(v, n);
    T pv = 0, pvx = 0;
#pragma omp simd reduction(+ : pv, pvx)
    for (std::int64_t i = 0; i < ch.plane(); ++i) pv += w[i], pvx += w[i] * (a[i] - mean);
    sv += pv, svx += pvx;
  }
  const auto sums = selected_sums<T, P>(ch, t, v);
  const T mv = static_cast<T>(sv) / m, mvx = static_cast<T>(svx) * rstd / m, mu = sums.u / m, mux = sums.ux / m;
  const T inner = sums.uv - m * (mv * mu + mvx * mux);  // <v, Q u>
  at<T>(t.grad_weight)[ch.c] = rstd * inner;

  const T k = weight * rstd * rstd;
  const T by_normalised = k * (2 * mvx * mux - inner / m) - v_weight * rstd * mux, by_x = by_normalised * rstd;
  const T constant = k * (mv * mux + mu * mvx) - v_weight * rstd * mu - by_x * mean;
  combine<T, P>(ch, t, v, at<T>(t.grad_x), constant, by_x, -k * mux, v_weight * rstd - k * mvx);

  using S = Simd<T>;
  using C = Cells<T, P>;
  const T to_v = weight * rstd, to_x = (v_weight - to_v * mvx) * rstd;
  const auto by_v = S::broadcast(to_v), from_x = S::broadcast(to_x), rest = S::broadcast(v_bias - to_v * mv - to_x * mean);
  const auto slope = S::broadcast(static_cast<T>(ch.s.slope));
  for_cells(ch, [&](std::int64_t x, std::int64_t cell, std::int64_t n) {
    const auto code = C::load_code(at<const std::uint8_t>(t.code) + cell, n);
    typename S::vec e[P * P], w[P * P];
    C::load(at<const T>(t.x) + x, ch.s.width, n, e);
    C::load(v + x, ch.s.width, n, w);
    const auto grad = by_v * C::pick(w, code) + from_x * C::pick(e, code) + rest;
    S::store_masked(at<T>(c.grad_g) + cell, (code & passes) != 0 ? grad : grad * slope, S::first(n));
  });
}

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
