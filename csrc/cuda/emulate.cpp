// The kernels on the CPU: block by block, and step by step for every thread of a block. For tests and debugging.
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "launch.h"

namespace sparsemeta::cuda {
namespace {

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

}  // namespace

void OnHost::convolve(const ConvArgs& a, const Launch& l) {
  with_types(l, [&](auto element, auto pixels) {
    using Registers = ConvRegisters<pixels.value>;
    run_blocks<Registers>(a, l, cuda::convolve<decltype(element), pixels.value, Team<Registers>>);
  });
}

void OnHost::weight_gradient(const GradArgs& a, const Launch& l) {
  with_types(l, [&](auto element, auto pixels) {
    using Registers = GradRegisters<pixels.value>;
    run_blocks<Registers>(a, l, cuda::weight_gradient<decltype(element), pixels.value, Team<Registers>>);
  });
}

void OnHost::add_parts(const PartsArgs& a, const Launch& l) {
  with_type(l, [&](auto element) {
    for (std::int64_t i = 0; i < l.blocks * l.threads; ++i) cuda::add_parts<decltype(element)>(a, i);
  });
}

void OnHost::update(const UpdateArgs& a, const Launch& l) {
  with_type(l, [&](auto element) {
    for (std::int64_t block = 0; block < l.blocks; ++block)
      for (int thread = 0; thread < l.threads; ++thread) cuda::update<decltype(element)>(a, block, thread);
  });
}

}  // namespace sparsemeta::cuda
