// The inner update of all layers and tasks on a GPU, in one launch.
#include "device.h"

namespace sparsemeta::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kUpdateThreads) inner_update(const UpdateArgs args) {
  update<T>(args, blockIdx.x, static_cast<int>(threadIdx.x));
}

}  // namespace

void OnDevice::update(const UpdateArgs& a, const Launch& l) {
  with_type(l, [&](auto element) { launch(inner_update<decltype(element)>, a, l); });
}

std::string problem() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  return status == cudaSuccess ? "" : describe(status);
}

}  // namespace sparsemeta::cuda
