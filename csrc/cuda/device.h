// Launching on a device: errors become exceptions, nothing waits.
#pragma once

#include <cuda_runtime.h>

#include <limits>
#include <stdexcept>
#include <string>

#include "launch.h"

namespace sparsemeta::cuda {

inline std::string describe(cudaError_t status) { return std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status); }

inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(describe(status));
}

// This runtime is linked statically and has a current device of its own: it follows the caller's.
template <class Args>
void launch(void (*kernel)(Args), const Args& args, const Launch& l) {
  if (l.blocks == 0) return;
  if (l.blocks > std::numeric_limits<int>::max()) throw std::runtime_error("expected at most 2^31 - 1 blocks, got more; split the batch");
  check(cudaSetDevice(l.device));
  kernel<<<static_cast<unsigned>(l.blocks), l.threads, l.shared_words * sizeof(float), reinterpret_cast<cudaStream_t>(l.stream)>>>(args);
  check(cudaGetLastError());
}

}  // namespace sparsemeta::cuda
