#include "chain.h"

#include <utility>

namespace sparsemeta {

Chain::Chain(std::vector<ChainBlock> given, FirstBlock images, ChainHead linear, bool f64)
    : blocks(std::move(given)), first(std::move(images)), head(std::move(linear)), f64(f64) {
  const auto take = [this](std::int64_t n) { return std::exchange(parameters, parameters + n); };
  for (auto& block : blocks) {
    block.values = take(block.conv->nnz);
    block.bias = take(block.biased ? block.channels() : 0);
    block.gamma = take(block.normalises ? block.channels() : 0);
    block.beta = take(block.normalises ? block.channels() : 0);
  }
  head.values = take(head.kept());
  head.bias = take(head.biased ? head.ways : 0);
}

std::int64_t Chain::arena_bytes() const {
  std::int64_t total = 0;
  for (const auto& arena : arenas) total += arena.bytes();
  return total;
}

}  // namespace sparsemeta
