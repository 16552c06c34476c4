// A few-shot network as a chain of blocks, convolution to pooling, and a linear head. See README.md, "A chain of blocks".
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "chain_first.h"
#include "conv_plan.h"

namespace sparsemeta {

struct ChainBlock {
  std::shared_ptr<const ConvPlan> conv;
  std::shared_ptr<const ConvPlan> dual;  // value and tangent at once: weight [[w, 0], [dw, w]]; [[w], [dw]] in the first block
  bool biased, normalises;
  std::int64_t pool;
  double eps, slope;
  // Where its parameters begin among all: kept weights, convolution bias, gamma and beta.
  std::int64_t values = 0, bias = 0, gamma = 0, beta = 0;

  std::int64_t channels() const { return conv->y.channels; }
  std::int64_t plane() const { return conv->y.height * conv->y.width; }
  std::int64_t cells() const { return conv->y.height / pool * (conv->y.width / pool); }
};

struct ChainHead {
  std::vector<std::int64_t> index;  // of the kept weights in [ways, features]
  std::int64_t features, ways;
  bool biased;
  std::int64_t values = 0, bias = 0;

  std::int64_t kept() const { return static_cast<std::int64_t>(index.size()); }
};

// Memory of one thread, kept from call to call.
class Arena {
 public:
  void* get(std::int64_t bytes) {
    if (bytes > bytes_) {
      memory_.reset(std::aligned_alloc(4096, static_cast<std::size_t>((bytes + 4095) / 4096 * 4096)));
      if (!memory_) throw std::bad_alloc();
      bytes_ = bytes;
    }
    return memory_.get();
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  std::int64_t bytes_ = 0;
};

struct Chain {
  // All parameters are one vector: for each block its kept weights, bias, gamma and beta, then those of the head.
  Chain(std::vector<ChainBlock> blocks, FirstBlock first, ChainHead head, bool f64);

  std::vector<ChainBlock> blocks;
  FirstBlock first;
  ChainHead head;
  bool f64;
  std::int64_t parameters = 0;
  std::vector<Arena> arenas;  // of the threads
  std::mutex busy;            // one call at a time has them

  std::int64_t arena_bytes() const;
};

enum class Order { none, first, second };

// What one call computes. Addresses: images [T, N, C, H, W], labels int64 [T, N]; theta and rates [parameters]; outputs, of
// which the last three may be 0: loss and accuracy float64 [T, 2], meta-gradient [parameters], mean over the tasks,
// adapted parameters [T, parameters], query logits [T, queries, ways].
struct ChainCall {
  std::int64_t tasks, supports, queries, steps;
  Order order;
  int threads;
  std::uintptr_t theta, rates, support_x, support_y, query_x, query_y;
  std::uintptr_t results, gradient, adapted, logits;
};

}  // namespace sparsemeta
