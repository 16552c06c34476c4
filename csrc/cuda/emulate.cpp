// The kernels on the CPU, for tests and debugging.
#include "emulate.h"

namespace sparsemeta::cuda {

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
