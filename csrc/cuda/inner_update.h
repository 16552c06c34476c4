// Program of one block of the inner update: out = p - rate * g for all parameters of all layers and tasks at once.
#pragma once

#include "portable.h"

namespace sparsemeta::cuda {

constexpr int kUpdates = 64;          // parameters of one launch: their addresses are its arguments, 4 KB at most
constexpr int kUpdateThreads = 256;
constexpr int kUpdatePiece = 4 * kUpdateThreads;  // elements of a block

struct Update {
  std::uintptr_t p, g, out;  // contiguous; p == 0 stands for zeros
  std::int64_t size, first_block;
  float rate;
};

struct UpdateArgs {
  Update all[kUpdates];
  std::int32_t count;
};

inline std::int64_t update_blocks(std::int64_t size) { return (size + kUpdatePiece - 1) / kUpdatePiece; }

template <typename T>
SPARSEMETA_KERNEL void update(const UpdateArgs& a, std::int64_t block, int thread) {
  int which = 0;
  while (which + 1 < a.count && a.all[which + 1].first_block <= block) ++which;
  const Update& u = a.all[which];
  const std::int64_t begin = (block - u.first_block) * kUpdatePiece + thread;
  SPARSEMETA_UNROLL
  for (int k = 0; k < kUpdatePiece / kUpdateThreads; ++k) {
    const std::int64_t i = begin + k * kUpdateThreads;
    if (i >= u.size) return;
    const float from = u.p ? load(reinterpret_cast<const T*>(u.p) + i) : 0.0f;
    store(reinterpret_cast<T*>(u.out) + i, from - u.rate * load(reinterpret_cast<const T*>(u.g) + i));
  }
}

}  // namespace sparsemeta::cuda
