// Masked convolution on a GPU: forward and input gradient (one kernel), weight gradient, and the sum of its parts.
#include "device.h"

namespace sparsemeta::cuda {
namespace {

constexpr int kMaxThreads = kMaxWarps * kLanes;

template <typename T, int P>
__global__ void __launch_bounds__(kMaxThreads, 2) masked_conv2d(const ConvArgs args) {
  extern __shared__ float4 shared[];  // float4 for its alignment
  Team<ConvRegisters<P>> team;
  team.threads = static_cast<int>(blockDim.x);
  convolve<T, P>(args, blockIdx.x, reinterpret_cast<float*>(shared), team);
}

template <typename T, int P>
__global__ void __launch_bounds__(kMaxThreads, 2) masked_conv2d_weight_grad(const GradArgs args) {
  extern __shared__ float4 shared[];
  Team<GradRegisters<P>> team;
  team.threads = static_cast<int>(blockDim.x);
  weight_gradient<T, P>(args, blockIdx.x, reinterpret_cast<float*>(shared), team);
}

template <typename T>
__global__ void __launch_bounds__(kAddThreads) masked_conv2d_weight_grad_sum(const PartsArgs args) {
  add_parts<T>(args, static_cast<std::int64_t>(blockIdx.x) * kAddThreads + threadIdx.x);
}

}  // namespace

void OnDevice::convolve(const ConvArgs& a, const Launch& l) {
  with_types(l, [&](auto element, auto pixels) { launch(masked_conv2d<decltype(element), decltype(pixels)::value>, a, l); });
}

void OnDevice::weight_gradient(const GradArgs& a, const Launch& l) {
  with_types(l, [&](auto element, auto pixels) { launch(masked_conv2d_weight_grad<decltype(element), decltype(pixels)::value>, a, l); });
}

void OnDevice::add_parts(const PartsArgs& a, const Launch& l) {
  with_type(l, [&](auto element) { launch(masked_conv2d_weight_grad_sum<decltype(element)>, a, l); });
}

}  // namespace sparsemeta::cuda
