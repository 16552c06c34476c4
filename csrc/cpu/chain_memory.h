// Where everything that a chain computes for one task lies in the arena of its thread.
#pragma once

#include <algorithm>
#include <vector>

#include "../chain.h"
#include "chain_first_block.h"
#include "chain_groups.h"
#include "chain_pieces.h"

namespace sparsemeta::SPARSEMETA_ISA {

// Of one plane y and its tangent v: the mean of y, its squares about that, the sum of v, and that of v times y less its mean.
struct PlaneSums {
  double mean, squares, v, vx;
};

// Of one channel y and its tangent v; mean_vx with the normalised y.
template <class T>
struct Statistics {
  T mean, rstd, mean_v, mean_vx;
};

// A gradient as a combination: coefficients of constant, y, its tangent v, and u and its tangent du at the selected elements.
template <class T>
struct Combination {
  T constant = 0, x = 0, v = 0, u = 0, du = 0;
};
template <class T>
struct Combinations {
  Combination<T> value, tangent;
};

constexpr std::int64_t block_sums = 5;  // of a channel, on the way back

// Of one block: images are [N, channels, ...] or, with tangents, [N, 2 channels, ...], values ahead of tangents.
template <class T>
struct BlockMemory {
  T *y, *selected, *a;  // of the convolution, of the pooling, of the block
  std::uint8_t* code;   // what the pooling selected
  PlaneSums* planes;    // [N, channels]
  Statistics<T>* statistics;
  Combinations<T>* combinations;
};

template <class T>
struct ChainMemory {
  std::vector<BlockMemory<T>> blocks;
  T* grad_y;           // of the images that are computed at once; as the next three, tangents ahead of values
  T* grad_first;       // of the first block's output, likewise
  T* grad_a[2];        // of all images, of the even and of the odd blocks
  T *sums, *totals;    // [threads, channels, block_sums, lanes], [channels, block_sums]
  T *values, *bias;    // of a dual convolution
  T *weight_grads;     // [threads, 2, kept]: sums, and the product that comes next
  T *head, *head_d, *grad_head;  // [ways, features]
  T *logits, *logits_d;          // and the loss's gradient in them
  T *trajectory;       // theta_0 to theta_K; only the last where nothing comes back to the others
  T *v, *tangent, *grad, *sum;
  std::int64_t kept = 1, all_sums;
  FirstMemory<T> first;
  FirstImages<T> support, query;

  ChainMemory(const Chain& chain, const ChainCall& call, Pieces& pieces)
      : first(chain.first, call.threads, pieces), support(chain.first, call.supports, pieces), query(chain.first, call.queries, pieces) {
    const bool second = call.order == Order::second;
    const auto images = std::max(call.supports * (second ? 2 : 1), call.queries);  // a tangent is as large as its value
    std::int64_t grad_y_size = 0, grad_first_size = 0, grad_a_size = 0, channels = 1;
    for (std::size_t l = 0; l < chain.blocks.size(); ++l) {
      const auto& block = chain.blocks[l];
      const bool is_first = l == 0 && chain.first.fits();
      const auto n = block.channels(), plane = is_first ? 0 : block.plane(), cells = block.cells();
      blocks.push_back({pieces.take<T>(images * n * plane), pieces.take<T>(is_first ? 0 : images * n * cells), pieces.take<T>(images * n * cells),
                        pieces.take<std::uint8_t>(images * n * cells), pieces.take<PlaneSums>(images * n), pieces.take<Statistics<T>>(n), pieces.take<Combinations<T>>(n)});
      for (const auto& [count, copies] : {std::pair{call.supports, second ? 2 : 1}, std::pair{call.queries, 1}}) {
        const auto at_once = chain_groups<T>(chain, is_first ? 1 : l, count, copies, call.threads).at_once();
        grad_y_size = std::max(grad_y_size, at_once * copies * n * plane);
        if (is_first) grad_first_size = std::max(grad_first_size, at_once * copies * n * cells);
      }
      if (!is_first || chain.blocks.size() == 1) grad_a_size = std::max(grad_a_size, images * n * cells);
      channels = std::max(channels, n);
      kept = std::max(kept, block.conv->nnz);
    }
    grad_y = pieces.take<T>(grad_y_size);
    grad_first = pieces.take<T>(grad_first_size);
    for (auto& grad : grad_a) grad = pieces.take<T>(grad_a_size);
    all_sums = channels * block_sums + Simd<T>::lanes;
    sums = pieces.take<T>(call.threads * all_sums * Simd<T>::lanes);
    totals = pieces.take<T>(all_sums);
    values = pieces.take<T>(3 * kept);
    bias = pieces.take<T>(2 * channels);
    weight_grads = pieces.take<T>(call.threads * 2 * kept);
    for (auto* weight : {&head, &head_d, &grad_head}) *weight = pieces.take<T>(chain.head.ways * chain.head.features);
    for (auto* rows : {&logits, &logits_d}) *rows = pieces.take<T>(images * chain.head.ways);
    trajectory = pieces.take<T>((second ? call.steps + 1 : 1) * chain.parameters);
    for (auto* vector : {&v, &tangent, &grad, &sum}) *vector = pieces.take<T>(chain.parameters);
    if (sum) std::fill_n(sum, chain.parameters, T{0});
  }
};

}  // namespace sparsemeta::SPARSEMETA_ISA
