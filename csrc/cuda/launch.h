// Two ways to run the blocks of a kernel: on a GPU, and one after the other on the CPU, with the same programs.
#pragma once

#include <string>

#include "inner_update.h"
#include "masked_conv2d.h"

namespace sparsemeta::cuda {

constexpr int kAddThreads = 256;

struct Launch {
  std::int64_t blocks;
  int threads, shared_words, pixels;  // pixels of a lane
  bool bf16;
  int device;
  std::uintptr_t stream;
};

#define SPARSEMETA_RUNNER(name)                                       \
  struct name {                                                       \
    static void convolve(const ConvArgs&, const Launch&);             \
    static void weight_gradient(const GradArgs&, const Launch&);      \
    static void add_parts(const PartsArgs&, const Launch&);           \
    static void update(const UpdateArgs&, const Launch&);             \
  };

SPARSEMETA_RUNNER(OnDevice)  // masked_conv2d.cu, inner_update.cu; throws std::runtime_error where a launch fails
SPARSEMETA_RUNNER(OnHost)    // emulate.cpp

// Why no GPU can be used, in the CUDA runtime's words; empty where one can. Defined in inner_update.cu.
std::string problem();

// Calls `run` with the two things that kernels are compiled for: the element type, and the pixels of a lane.
template <class Run>
void with_types(const Launch& l, Run run) {
  const auto with_pixels = [&](auto element) {
    if (l.pixels == 8)
      run(element, std::integral_constant<int, 8>{});
    else
      run(element, std::integral_constant<int, 2>{});
  };
  if (l.bf16)
    with_pixels(Bf16{});
  else
    with_pixels(float{});
}

template <class Run>
void with_type(const Launch& l, Run run) {
  if (l.bf16)
    run(Bf16{});
  else
    run(float{});
}

}  // namespace sparsemeta::cuda
