// The loops of a chain's first block over strips of rows that stay in the first-level cache.
#pragma once

#include "../chain_first.h"
#include "cells.h"

namespace sparsemeta::SPARSEMETA_ISA {

// Kept weights of one output: where each reads, and its weight; the weight of the tangent is `tangent` elements behind.
template <class T>
struct FoldedRow {
  const std::int32_t* tap;
  const T* weight;
  std::int64_t count, tangent;
  T constant, constant_d;
};

// Pooled rows [first, last) of one image.
struct Strip {
  std::int64_t first, last;
};

template <class T, int P>
struct FirstRows {
  using S = Simd<T>;
  using C = Cells<T, P>;
  using vec = typename S::vec;
  static constexpr int lanes = S::lanes, E = P * P;

  const FirstBlock& block;
  T slope;

  std::int64_t columns() const { return block.out_width / P; }
  std::int64_t height() const { return block.out_height / P; }

  // Vectors of cells that are computed together, one below another or one behind another.
  struct Group {
    int vectors;
    bool below;
  };
  Group group() const {
    const auto across = (columns() + lanes - 1) / lanes;
    for (int n = vector_bytes == 64 ? 3 : 1; n > 1; --n)
      if (across % n == 0) return {n, false};
    for (int n = vector_bytes == 64 ? 3 : 1; n > 1; --n)
      if (height() % n == 0) return {n, true};
    return {1, false};
  }

  // Hardware does not fetch ahead from one channel to the next: brings the strip of a channel into the cache, to write (1) or not.
  template <int write, class E>
  void fetch(const Strip& strip, const E* channel) const {
    constexpr auto line = static_cast<std::int64_t>(64 / sizeof(E));
    for (auto at = strip.first * columns(); at < strip.last * columns(); at += line) __builtin_prefetch(channel + at, write);
  }

  // y, code and, at the selected elements, the tangent (`dual`), of the rows of a strip.
  template <bool dual>
  void forward(const T* planes, const Strip& strip, const FoldedRow<T>& row, T* y, T* y_d, std::uint8_t* code) const {
    with_group([&](auto vectors, auto below) { rows<dual, vectors, below>(planes, strip, row, y, y_d, code); });
  }

  // sums[j][lanes] += u at the selected elements times what kept weight j reads there, with the tangents of the
  // sums `tangent` elements behind; total[lanes] += u.
  template <bool dual>
  void correlate(const T* planes, const Strip& strip, const std::int32_t* tap, std::int64_t count, const T* g, const T* g_d,
                 const std::uint8_t* code, T* sums, std::int64_t tangent, T* total, T* total_d) const {
    constexpr int most = vector_bytes == 64 ? (dual ? 6 : 12) : 3;
    const auto run = [&](auto v, auto is_below) {
      for (std::int64_t j = 0; j < count || j == 0; j += most) {
        T *to = j ? nullptr : total, *to_d = j ? nullptr : total_d;
        some<dual, v, is_below, most>(std::min<std::int64_t>(most, count - j), planes, strip, tap + j, g, g_d, code, sums + j * lanes, tangent, to, to_d);
      }
    };
    with_group(run);
  }

 private:
  // Calls f with the vectors of a group, and whether they are below one another, as constants.
  template <class F>
  void with_group(F f) const {
    const auto [vectors, below] = group();
    const auto directed = [&](auto n) { below ? f(n, std::true_type{}) : f(n, std::false_type{}); };
    if (vectors == 3) directed(std::integral_constant<int, 3>{});
    else if (vectors == 2) directed(std::integral_constant<int, 2>{});
    else f(std::integral_constant<int, 1>{}, std::false_type{});
  }

  template <bool dual, int V, bool below>
  void rows(const T* planes, const Strip& strip, const FoldedRow<T>& row, T* y, T* y_d, std::uint8_t* code) const {
    const auto step = below ? block.pitch : lanes, step_cell = below ? columns() : lanes;
    for (auto r = strip.first; r < strip.last; r += below ? V : 1)
      for (std::int64_t q = 0; q < columns(); q += below ? lanes : V * lanes) {
        const T* from = planes + r * block.pitch + q;
        vec e[V][E], d[dual ? V : 1][E];
        for (int v = 0; v < V; ++v)
          for (int k = 0; k < E; ++k) {
            e[v][k] = S::broadcast(row.constant);
            if constexpr (dual) d[v][k] = S::broadcast(row.constant_d);
          }
        for (std::int64_t j = 0; j < row.count; ++j) {
          const auto* offset = block.offset.data() + row.tap[j] * E;
          const auto w = S::broadcast(row.weight[j]);
          vec w_d;
          if constexpr (dual) w_d = S::broadcast(row.weight[row.tangent + j]);
          for (int k = 0; k < E; ++k)
            for (int v = 0; v < V; ++v) {
              const auto x = S::loadu(from + offset[k] + v * step);
              e[v][k] += w * x;
              if constexpr (dual) d[v][k] += w_d * x;
            }
        }
        for (int v = 0; v < V; ++v) {
          const auto cell = r * columns() + q + v * step_cell, n = columns() - q - (below ? 0 : v * lanes);
          const auto chosen = C::choose(e[v]);
          const auto z = C::pick(e[v], chosen);
          const auto cut = z <= 0;
          const auto factor = S::broadcast(slope);
          S::store_masked(y + cell, cut ? (slope == 0 ? S::zero() : z * factor) : z, S::first(n));
          C::store_code(code + cell, cut ? chosen : chosen + passes, n);
          if constexpr (dual) {
            const auto z_d = C::pick(d[v], chosen);
            S::store_masked(y_d + cell, cut ? z_d * factor : z_d, S::first(n));
          }
        }
      }
  }

  template <bool dual, int V, bool below, int size, class... Rest>
  void some(std::int64_t count, Rest... rest) const {
    if (count == size) exactly<dual, V, below, size>(rest...);
    else if constexpr (size > 0) some<dual, V, below, size - 1>(count, rest...);
  }

  template <bool dual, int V, bool below, int size>
  void exactly(const T* planes, const Strip& strip, const std::int32_t* tap, const T* g, const T* g_d, const std::uint8_t* code, T* sums,
               std::int64_t tangent, T* total, T* total_d) const {
    const auto step = below ? block.pitch : lanes, step_cell = below ? columns() : lanes;
    vec acc[size + 1], acc_d[size + 1];
    for (int j = 0; j <= size; ++j) acc[j] = acc_d[j] = S::zero();  // the last ones for the totals
    std::int32_t offset[E][size + 1];
    for (int k = 0; k < E; ++k)
      for (int j = 0; j < size; ++j) offset[k][j] = block.offset[static_cast<std::size_t>(tap[j] * E + k)];
    const auto factor = S::broadcast(slope);
    for (auto r = strip.first; r < strip.last; r += below ? V : 1)
      for (std::int64_t q = 0; q < columns(); q += below ? lanes : V * lanes) {
        const T* from = planes + r * block.pitch + q;
        vec u[V], u_d[V];
        typename S::ivec chosen[V];
        for (int v = 0; v < V; ++v) {
          const auto cell = r * columns() + q + v * step_cell, n = columns() - q - (below ? 0 : v * lanes);
          chosen[v] = C::load_code(code + cell, n);
          u[v] = C::gradient(g + cell, chosen[v], factor, n);
          acc[size] += u[v];
          if constexpr (dual) acc_d[size] += u_d[v] = C::gradient(g_d + cell, chosen[v], factor, n);
          chosen[v] &= 3;
        }
        for (int k = 0; k < E; ++k) {
          vec at[V], at_d[V];
          for (int v = 0; v < V; ++v) {
            at[v] = chosen[v] == k ? u[v] : S::zero();
            if constexpr (dual) at_d[v] = chosen[v] == k ? u_d[v] : S::zero();
          }
          for (int j = 0; j < size; ++j)
            for (int v = 0; v < V; ++v) {
              const auto x = S::loadu(from + offset[k][j] + v * step);
              acc[j] += at[v] * x;
              if constexpr (dual) acc_d[j] += at_d[v] * x;
            }
        }
      }
    for (int j = 0; j < size; ++j) {
      add(sums + j * lanes, acc[j]);
      if constexpr (dual) add(sums + tangent + j * lanes, acc_d[j]);
    }
    if (!total) return;
    add(total, acc[size]);
    if constexpr (dual) add(total_d, acc_d[size]);
  }

  static void add(T* to, vec v) { S::store(to, S::load(to) + v); }
};

}  // namespace sparsemeta::SPARSEMETA_ISA
