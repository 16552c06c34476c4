// Runs the blocks of a kernel on the CPU: one after the other, and step by step for every thread of a block.
#pragma once

#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "launch.h"

namespace sparsemeta::cuda {

constexpr int kGuard = 1024;  // words after a block's shared memory that nothing may write

// What a GPU leaves undefined is NaN here, so that a read of what was never staged shows.
template <class Registers, class Args, class Program>
void run_blocks(const Args& args, const Launch& l, Program program) {
  for (std::int64_t block = 0; block < l.blocks; ++block) {
    std::vector<Registers> registers(l.threads);
    std::memset(static_cast<void*>(registers.data()), 0xff, l.threads * sizeof(Registers));
    std::vector<float> shared(l.shared_words + kGuard, std::numeric_limits<float>::quiet_NaN());
    Team<Registers> team{registers.data(), l.threads};
    program(args, block, shared.data(), team);
    for (int i = 0; i < kGuard; ++i)
      if (!std::isnan(shared[l.shared_words + i])) throw std::out_of_range("a block wrote past its shared memory");
  }
}

}  // namespace sparsemeta::cuda
