// Program of a block whose taps are straight-line code. What conv_source.cpp writes for one pattern begins with this.
#pragma once

#include "masked_conv2d.h"

namespace sparsemeta::cuda {

constexpr int kGeneratedThreads = 128;  // of a block: all of them run the same code, each for its own pixels
constexpr int kGeneratedBlocks = 2;     // of a multiprocessor at least: with three, 168 registers, some sums are spilled

struct alignas(16) Quad {  // values that are loaded at once
  float x, y, z, w;
};

template <int R, int P>
struct GeneratedRegisters {
  float sum[R][P];
  int slot[P];
};

// A step of a team that is inlined whatever its length, which a lambda is not: the sums have to stay in registers.
template <class Code>
struct Products {
  int chunk;
  const float *values, *input;

  template <class Registers>
  SPARSEMETA_KERNEL void operator()(int, Registers& r) const {
    Code::run(chunk, values, input, r);
  }
};

// `Code::run(chunk, values, input, r)` adds the products of a chunk; it sums `Code::rows` outputs at `Code::pixels` pixels.
template <typename T, class Code, class Team>
SPARSEMETA_KERNEL void convolve_generated(const ConvArgs& a, std::int64_t block, float* shared, Team& team) {
  constexpr int R = Code::rows, P = Code::pixels;
  using Registers = GeneratedRegisters<R, P>;
  const Table& t = *a.table;
  const Work work = work_of(a, block);
  const Phase& p = work.phase;
  team.each([&](int thread, Registers& r) {
    find_slots<P>(p, thread, kGeneratedThreads, r.slot);
    SPARSEMETA_UNROLL
    for (int row = 0; row < R; ++row)
      SPARSEMETA_UNROLL
      for (int k = 0; k < P; ++k) r.sum[row][k] = 0.0f;
  });
  for (int i = t.chunk_begin(p, work.group); i < t.chunk_begin(p, work.group + 1); ++i) {
    const Chunk& c = t.chunk(i);
    const int values = c.warp_value[t.warps];
    team.each([&](int thread, Registers&) {
      stage_values<T>(a, work.task, c, values, shared, thread, kGeneratedThreads);
      stage_input<T>(a.in, work.task, a.images, t, p, c, work.tile, shared + values, thread, kGeneratedThreads);
    });
    team.each(Products<Code>{i, shared, shared + values});
  }
  team.each([&](int thread, Registers& r) {
    write_outputs<T>(a, work, work.group * t.warps * kRows, thread, kGeneratedThreads, r.sum);
  });
}

}  // namespace sparsemeta::cuda

#if defined(__CUDACC__)
#define SPARSEMETA_GENERATED(T)                                                                                           \
  extern "C" __global__ void __launch_bounds__(sparsemeta::cuda::kGeneratedThreads, sparsemeta::cuda::kGeneratedBlocks) \
      masked_conv2d_generated(const sparsemeta::cuda::ConvArgs args) {                                                    \
    using namespace sparsemeta::cuda;                                                                                     \
    extern __shared__ float4 shared[];                                                                                    \
    Team<GeneratedRegisters<Code::rows, Code::pixels>> team;                                                              \
    convolve_generated<T, Code>(args, blockIdx.x, reinterpret_cast<float*>(shared), team);                                \
  }
#else
#define SPARSEMETA_GENERATED(T)
#endif
