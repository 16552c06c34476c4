// What the sums of a block, kept lane by lane and thread by thread, come to.
#pragma once

#include "../chain.h"
#include "simd.h"

namespace sparsemeta::SPARSEMETA_ISA {

// totals[i] = the lanes of sums[thread][i] together, for i in [0, n); whole vectors of both are read and written.
template <class T>
void add_lanes(const T* sums, std::int64_t n, int threads, std::int64_t of_thread, T* totals) {
  using S = Simd<T>;
  for (std::int64_t i = 0; i < n; i += S::lanes) {
    typename S::vec r[S::lanes] = {};
    for (int thread = 0; thread < threads; ++thread)
      for (int k = 0; k < S::lanes; ++k) r[k] += S::load(sums + thread * of_thread + (i + k) * S::lanes);
    S::sum_lanes(r);
    S::storeu(totals + i, r[0]);
  }
}

// Where the gradients of gamma and beta go. A bias that normalisation takes away has none; without normalisation it is beta.
template <class T>
void store_norm_grads(const ChainBlock& block, std::int64_t c, double to_gamma, double to_beta, T* grad) {
  if (block.biased) grad[block.bias + c] = block.normalises ? T{0} : static_cast<T>(to_beta);
  if (!block.normalises) return;
  grad[block.gamma + c] = static_cast<T>(to_gamma);
  grad[block.beta + c] = static_cast<T>(to_beta);
}

}  // namespace sparsemeta::SPARSEMETA_ISA
