// Cells of a pooled image, as many at a time as a vector has lanes, and the code that says which element was selected.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "simd.h"

namespace sparsemeta::SPARSEMETA_ISA {

template <class T>
T* at(std::uintptr_t address) { return reinterpret_cast<T*>(address); }

// One channel: its planes of size height * width in every image, and pooled cells of P x P elements; of 1 x 1, in one row.
template <class T, int P>
struct Channel {
  const NormShape& s;
  std::int64_t c;
  bool normalises = true;

  std::int64_t plane() const { return s.height * s.width; }
  std::int64_t rows() const { return P == 1 ? 1 : s.height / P; }
  std::int64_t columns() const { return P == 1 ? plane() : s.width / P; }
  T* image(T* x, std::int64_t n) const { return x + (n * s.channels + c) * plane(); }
  const T* image(const T* x, std::int64_t n) const { return x + (n * s.channels + c) * plane(); }
  std::int64_t cell(std::int64_t n, std::int64_t row) const { return ((n * s.channels + c) * rows() + row) * columns(); }
  T count() const { return static_cast<T>(s.images * plane()); }
  // What makes a sum a mean; without normalisation every mean in the derivatives is none.
  T inverse() const { return normalises ? 1 / count() : T{0}; }
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
  // The place of the largest element, of equal ones the first, as F.max_pool2d.
  static ivec choose(const vec (&e)[P * P]) {
    ivec k{};
    if constexpr (P == 2) {
      const vec top = e[1] > e[0] ? e[1] : e[0], low = e[3] > e[2] ? e[3] : e[2];
      k = e[1] > e[0] ? k + 1 : k;
      k = low > top ? (e[3] > e[2] ? k * 0 + 3 : k * 0 + 2) : k;
    }
    return k;
  }
  static vec pick(const vec (&e)[P * P], ivec code) {
    if constexpr (P == 1) return e[0];
    else {
      const vec top = (code & 1) != 0 ? e[1] : e[0], bottom = (code & 1) != 0 ? e[3] : e[2];
      return (code & 2) != 0 ? bottom : top;
    }
  }
  // With intrinsics: compilers take the vector of bytes apart, element by element.
  static ivec load_code(const std::uint8_t* from, std::int64_t n) {
#if defined(__AVX512F__)
    const auto some = _mm_maskz_loadu_epi8(static_cast<__mmask16>(S::first(n)), from);
    if constexpr (sizeof(T) == 4) return reinterpret_cast<ivec>(_mm512_cvtepu8_epi32(some));
    else return reinterpret_cast<ivec>(_mm512_cvtepu8_epi64(some));
#else
    bytes b{};
    std::memcpy(&b, from, static_cast<std::size_t>(std::min<std::int64_t>(n, lanes)));
    return __builtin_convertvector(b, ivec);
#endif
  }
  static void store_code(std::uint8_t* to, ivec code, std::int64_t n) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) _mm512_mask_cvtepi32_storeu_epi8(to, static_cast<__mmask16>(S::first(n)), reinterpret_cast<__m512i>(code));
    else _mm512_mask_cvtepi64_storeu_epi8(to, static_cast<__mmask8>(S::first(n)), reinterpret_cast<__m512i>(code));
#else
    const bytes b = __builtin_convertvector(code, bytes);
    std::memcpy(to, &b, static_cast<std::size_t>(std::min<std::int64_t>(n, lanes)));
#endif
  }
  // The gradient that reaches the selected elements.
  static vec gradient(const T* g, ivec code, vec slope, std::int64_t n) {
    const vec given = S::load_masked(g, S::first(n));
    return (code & passes) != 0 ? given : given * slope;
  }
  static T sum(vec v) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_reduce_add_ps(reinterpret_cast<__m512>(v));
    else return _mm512_reduce_add_pd(reinterpret_cast<__m512d>(v));
#else
    T total = 0;
    for (int i = 0; i < lanes; ++i) total += v[i];
    return total;
#endif
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

// Calls f(offset) for the elements of the last row and column that no cell covers, where the size is odd.
template <class T, int P, class F>
void for_uncovered(const Channel<T, P>& ch, F f) {
  if (P == 1) return;
  for (std::int64_t n = 0; n < ch.s.images; ++n) {
    const auto plane = (n * ch.s.channels + ch.c) * ch.plane();
    for (auto row = P * ch.rows(); row < ch.s.height; ++row)
      for (std::int64_t j = 0; j < ch.s.width; ++j) f(plane + row * ch.s.width + j);
    for (auto j = P * ch.columns(); j < ch.s.width; ++j)
      for (std::int64_t row = 0; row < P * ch.rows(); ++row) f(plane + row * ch.s.width + j);
  }
}

}  // namespace sparsemeta::SPARSEMETA_ISA
