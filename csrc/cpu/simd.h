// Vectors of the instruction set this file is compiled for, in GCC/Clang vector extensions; intrinsics only for masks.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace sparsemeta::SPARSEMETA_ISA {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, tile_vectors = 16;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32, tile_vectors = 12;
#else
constexpr int vector_bytes = 16, tile_vectors = 12;
#endif

template <class T>
struct Simd {
  static constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));
  typedef T vec __attribute__((vector_size(vector_bytes)));
  typedef T loose __attribute__((vector_size(vector_bytes), aligned(alignof(T)), may_alias));
  using integer = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  typedef integer ivec __attribute__((vector_size(vector_bytes)));

  static vec load(const T* p) { return *reinterpret_cast<const vec*>(p); }
  static void store(T* p, vec v) { *reinterpret_cast<vec*>(p) = v; }
  static vec loadu(const T* p) { return *reinterpret_cast<const loose*>(p); }
  static void storeu(T* p, vec v) { *reinterpret_cast<loose*>(p) = v; }
  static vec zero() { return vec{}; }
  static vec broadcast(T a) { return a - vec{}; }

  static std::uint32_t first(std::int64_t n) { return n >= lanes ? ~0u >> (32 - lanes) : (1u << n) - 1u; }

  // Lanes outside the mask are not touched in memory and read as zero.
  static vec load_masked(const T* p, std::uint32_t mask) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return reinterpret_cast<vec>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), p));
    else return reinterpret_cast<vec>(_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), p));
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return reinterpret_cast<vec>(_mm256_maskload_ps(p, reinterpret_cast<__m256i>(spread(mask))));
    else return reinterpret_cast<vec>(_mm256_maskload_pd(p, reinterpret_cast<__m256i>(spread(mask))));
#else
    vec v{};
    for (int i = 0; i < lanes; ++i)
      if (mask >> i & 1u) v[i] = p[i];
    return v;
#endif
  }
  static void store_masked(T* p, vec v, std::uint32_t mask) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, static_cast<__mmask16>(mask), reinterpret_cast<__m512>(v));
    else _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), reinterpret_cast<__m512d>(v));
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) _mm256_maskstore_ps(p, reinterpret_cast<__m256i>(spread(mask)), reinterpret_cast<__m256>(v));
    else _mm256_maskstore_pd(p, reinterpret_cast<__m256i>(spread(mask)), reinterpret_cast<__m256d>(v));
#else
    for (int i = 0; i < lanes; ++i)
      if (mask >> i & 1u) p[i] = v[i];
#endif
  }

  // r[i][j] <-> r[j][i], by swapping ever larger halves.
  static void transpose(vec* r) { swap_halves<1>(r); }

  // Lane i of r[0] becomes the sum of r[i].
  static void sum_lanes(vec* r) { add_halves<1>(r); }

  static vec shuffle(vec a, vec b, ivec from) {
#if defined(__clang__)
    vec v;
    for (int i = 0; i < lanes; ++i) v[i] = from[i] < lanes ? a[from[i]] : b[from[i] - lanes];
    return v;
#else
    return __builtin_shuffle(a, b, from);
#endif
  }

 private:
  struct Pair {
    vec low, high;
  };

  static ivec spread(std::uint32_t mask) {
    ivec bit;
    for (int i = 0; i < lanes; ++i) bit[i] = integer{1} << i;
    return (bit & static_cast<integer>(mask)) != 0;
  }
  // Of two vectors, each the lanes i with i & step of both, in two vectors.
  template <int step>
  static Pair halves(vec a, vec b) {
    ivec low, high;
    for (int i = 0; i < lanes; ++i) {
      low[i] = i & step ? i - step + lanes : i;
      high[i] = i & step ? i + lanes : i + step;
    }
    return {shuffle(a, b, low), shuffle(a, b, high)};
  }
  template <int step>
  static void swap_halves(vec* r) {
    for (int i = 0; i < lanes; ++i) {
      if (i & step) continue;
      const auto [low, high] = halves<step>(r[i], r[i + step]);
      r[i] = low, r[i + step] = high;
    }
    if constexpr (2 * step < lanes) swap_halves<2 * step>(r);
  }
  template <int step>
  static void add_halves(vec* r) {
    for (int i = 0; i < lanes; i += 2 * step) {
      const auto [low, high] = halves<step>(r[i], r[i + step]);
      r[i] = low + high;
    }
    if constexpr (2 * step < lanes) add_halves<2 * step>(r);
  }
};

}  // namespace sparsemeta::SPARSEMETA_ISA
