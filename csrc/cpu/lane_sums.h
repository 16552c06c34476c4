// Running sums of a weight gradient, in the order of the kernel that makes them.
#pragma once

#include <algorithm>

#include "../generated.h"
#include "scratch.h"

namespace sparsemeta::SPARSEMETA_ISA {

// Weights from `begin` on, as far as `end`.
struct Range {
  std::int64_t begin, end;
};

// While they fit in the second-level cache the sums of all lanes are kept; of more weights than that, only their total.
template <class T>
class LaneSums {
  using S = Simd<T>;

 public:
  static bool fit(std::int64_t nnz) { return nnz * vector_bytes <= 512 * 1024; }

  LaneSums(Range weights, bool all_lanes, Buffer<T>& buffer) : weights_(weights), all_lanes_(all_lanes) {
    const auto size = (weights.end - weights.begin + 2 * S::lanes) * (all_lanes ? S::lanes : 1);
    sums_ = buffer.get(size);
    std::fill_n(sums_, size, T{0});
  }

  T* data() const { return sums_; }  // [weights][lanes]

  // Parts [begin, end) of the code, on one tile.
  void add(const GeneratedCorrelation& code, std::int64_t begin, std::int64_t end, const CorrelationOperands& tile) const {
    for (auto part = begin; part < end; ++part) {
      auto operands = tile;
      operands.before = operands.sums = sums_ + (code.begin(part) - weights_.begin) * S::lanes;
      if (all_lanes_) code.run(part, operands);
      else add_total(code, part, operands);
    }
  }

  void scatter(const std::vector<std::int32_t>& source, T* out) const {
    const auto count = weights_.end - weights_.begin;
    for (std::int64_t j = 0; j < count; j += S::lanes) {
      const auto sum = all_lanes_ ? total(sums_ + j * S::lanes) : S::loadu(sums_ + j);
      for (std::int64_t i = 0; i < std::min<std::int64_t>(S::lanes, count - j); ++i) out[source[static_cast<std::size_t>(weights_.begin + j + i)]] = sum[i];
    }
  }

 private:
  void add_total(const GeneratedCorrelation& code, std::int64_t part, CorrelationOperands operands) const {
    alignas(vector_bytes) static const float zeros[2 * S::lanes * S::lanes] = {};
    alignas(vector_bytes) float lanes[2 * S::lanes * S::lanes];
    operands.before = zeros, operands.sums = lanes;
    code.run(part, operands);
    const auto begin = code.begin(part) - weights_.begin, end = code.begin(part + 1) - weights_.begin;
    for (auto j = begin; j < end; j += S::lanes) {
      const auto mask = S::first(end - j);
      S::store_masked(sums_ + j, S::load_masked(sums_ + j, mask) + total(lanes + (j - begin) * S::lanes), mask);
    }
  }

  static typename S::vec total(const T* sums) {
    typename S::vec r[S::lanes];
    for (int i = 0; i < S::lanes; ++i) r[i] = S::load(sums + i * S::lanes);
    S::sum_lanes(r);
    return r[0];
  }

  Range weights_;
  bool all_lanes_;
  T* sums_;
};

}  // namespace sparsemeta::SPARSEMETA_ISA
