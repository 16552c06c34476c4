// Where everything that a chain computes for one task lies in the arena of its thread.
#pragma once

#include <algorithm>
#include <vector>

#include "../chain.h"
#include "chain_first_block.h"
#include "chain_pieces.h"

namespace sparsemeta::SPARSEMETA_ISA {

// Of one block: images are [N, channels, ...] or, with tangents, [N, 2 channels, ...], values ahead of tangents.
template <class T>
struct BlockMemory {
  T *y, *a;                            // of the convolution, of the pooling
  std::uint8_t* code;                  // what the pooling selected
  T *mean, *rstd, *mean_v, *mean_vx;   // of y, and of its tangent
};

template <class T>
struct ChainMemory {
  std::vector<BlockMemory<T>> blocks;
  T* grad_y;           // of the largest y; as the next two, tangents ahead of values
  T* grad_a[2];        // of the even and of the odd blocks
  T *values, *bias;    // of a dual convolution
  T *extra;            // the second product of a weight gradient's tangent, and gradients that are not wanted
  T *ones, *zeros;     // gamma and beta of a block without normalisation
  T *head, *head_d, *grad_head;  // [ways, features]
  T *logits, *logits_d;          // and the loss's gradient in them
  T *trajectory;       // theta_0 to theta_K; only the last where nothing comes back to the others
  T *v, *tangent, *grad, *sum;
  FirstMemory<T> first;
  FirstImages<T> support, query;

  ChainMemory(const Chain& chain, const ChainCall& call, Pieces& pieces)
      : first(chain.first, call.threads, pieces), support(chain.first, call.supports, pieces), query(chain.first, call.queries, pieces) {
    const bool second = call.order == Order::second;
    const auto images = std::max(call.supports * (second ? 2 : 1), call.queries);  // a tangent is as large as its value
    std::int64_t largest_y = 0, largest_a = 0, channels = 1, kept = 0;
    for (const auto& block : chain.blocks) {
      const auto n = block.channels();
      // The first block may do without y, the only array of its size.
      const auto plane = blocks.empty() && chain.first.fits() ? 0 : block.plane();
      blocks.push_back({pieces.take<T>(images * n * plane), pieces.take<T>(images * n * block.cells()),
                        pieces.take<std::uint8_t>(images * n * block.cells()), pieces.take<T>(n), pieces.take<T>(n),
                        pieces.take<T>(n), pieces.take<T>(n)});
      largest_y = std::max(largest_y, n * plane);
      largest_a = std::max(largest_a, n * block.cells());
      channels = std::max(channels, n);
      kept = std::max(kept, block.conv->nnz);
    }
    grad_y = pieces.take<T>(images * largest_y);
    for (auto& grad : grad_a) grad = pieces.take<T>(images * largest_a);
    values = pieces.take<T>(3 * kept);
    bias = pieces.take<T>(2 * channels);
    extra = pieces.take<T>(std::max(kept, channels));
    ones = pieces.take<T>(channels);
    zeros = pieces.take<T>(channels);
    for (auto* weight : {&head, &head_d, &grad_head}) *weight = pieces.take<T>(chain.head.ways * chain.head.features);
    for (auto* rows : {&logits, &logits_d}) *rows = pieces.take<T>(images * chain.head.ways);
    trajectory = pieces.take<T>((second ? call.steps + 1 : 1) * chain.parameters);
    for (auto* vector : {&v, &tangent, &grad, &sum}) *vector = pieces.take<T>(chain.parameters);
    if (!ones) return;
    std::fill_n(ones, channels, T{1});
    std::fill_n(zeros, channels, T{0});
    std::fill_n(sum, chain.parameters, T{0});
  }
};

}  // namespace sparsemeta::SPARSEMETA_ISA
