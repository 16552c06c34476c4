// What lets g++, nvcc and NVRTC compile the same kernels: g++ runs them block by block and thread by thread on the CPU.
#pragma once

#if defined(__CUDACC_RTC__)  // has no standard headers
namespace std {
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
using uintptr_t = unsigned long long;
using ::memcpy;
}  // namespace std
#else
#include <cstdint>
#include <cstring>
#include <type_traits>
#endif

#if defined(__CUDACC__)
#define SPARSEMETA_HD __host__ __device__ __forceinline__  // index arithmetic
#define SPARSEMETA_KERNEL __device__ __forceinline__       // programs of a block
#define SPARSEMETA_UNROLL _Pragma("unroll")
#else
#define SPARSEMETA_HD inline
#define SPARSEMETA_KERNEL inline
#define SPARSEMETA_UNROLL
#endif

namespace sparsemeta::cuda {

constexpr int kLanes = 32;

struct Bf16 {
  std::uint16_t bits;
};

SPARSEMETA_HD float load(const float* p) { return *p; }

SPARSEMETA_HD float load(const Bf16* p) {
  const std::uint32_t wide = static_cast<std::uint32_t>(p->bits) << 16;
  float f;
  std::memcpy(&f, &wide, sizeof f);
  return f;
}

SPARSEMETA_HD void store(float* p, float f) { *p = f; }

// To the nearest, ties to even; a NaN stays one.
SPARSEMETA_HD void store(Bf16* p, float f) {
  std::uint32_t wide;
  std::memcpy(&wide, &f, sizeof wide);
  p->bits = static_cast<std::uint16_t>(f == f ? (wide + 0x7fffu + (wide >> 16 & 1u)) >> 16 : 0x7fc0u);
}

// Division of 0 <= n < 2^31 by a number known beforehand: a multiplication and a shift (Granlund and Montgomery 1994).
struct Division {
  std::uint32_t divisor = 1, multiplier = 1, shift = 0;

  SPARSEMETA_HD int quotient(int n) const {
    const auto u = static_cast<std::uint32_t>(n);
    const auto high = static_cast<std::uint32_t>(static_cast<std::uint64_t>(u) * multiplier >> 32);
    return static_cast<int>((high + u) >> shift);
  }
  SPARSEMETA_HD int remainder(int n, int q) const { return n - q * static_cast<int>(divisor); }
};

SPARSEMETA_HD Division division(int by) {
  Division d;
  d.divisor = static_cast<std::uint32_t>(by < 1 ? 1 : by);
  while ((std::uint64_t{1} << d.shift) < d.divisor) ++d.shift;
  d.multiplier = static_cast<std::uint32_t>(((std::uint64_t{1} << 32) * ((std::uint64_t{1} << d.shift) - d.divisor)) / d.divisor + 1);
  return d;
}

// A team is the threads of a block. `each` runs a step for every thread and then waits for all; `warps` gives every warp
// a team of its own, whose `each` waits for that warp only. On the CPU the threads take turns.
#if defined(__CUDACC__)

template <class Registers>
struct Warp {
  Registers& own;
  int index;

  template <class Step>
  __device__ __forceinline__ void each(Step step) {
    step(static_cast<int>(threadIdx.x) % kLanes, own);
    __syncwarp();
  }
};

template <class Registers>
struct Team {
  Registers own;
  int threads;

  template <class Step>
  __device__ __forceinline__ void each(Step step) {
    step(static_cast<int>(threadIdx.x), own);
    __syncthreads();
  }
  template <class Step>
  __device__ __forceinline__ void warps(Step step) {
    Warp<Registers> warp{own, static_cast<int>(threadIdx.x) / kLanes};
    step(warp);
    __syncthreads();
  }
};

#else

template <class Registers>
struct Warp {
  Registers* all;
  int index;

  template <class Step>
  void each(Step step) {
    for (int lane = 0; lane < kLanes; ++lane) step(lane, all[lane]);
  }
};

template <class Registers>
struct Team {
  Registers* all;
  int threads;

  template <class Step>
  void each(Step step) {
    for (int thread = 0; thread < threads; ++thread) step(thread, all[thread]);
  }
  template <class Step>
  void warps(Step step) {
    for (int w = 0; w < threads / kLanes; ++w) {
      Warp<Registers> warp{all + w * kLanes, w};
      step(warp);
    }
  }
};

#endif

}  // namespace sparsemeta::cuda
