#include "chain_first.h"

#include <algorithm>
#include <numeric>

namespace sparsemeta {
namespace {

std::int64_t round_up(std::int64_t a, std::int64_t to) { return (a + to - 1) / to * to; }

}  // namespace

FirstBlock::FirstBlock(const ConvShape& s, const std::int64_t* index, std::int64_t nnz, std::int64_t pool) : shape(s), pool(pool) {
  const auto [outputs, channels, kh, kw] = s.weight;
  if (channels * kh * kw > most_taps) return;
  taps = channels * kh * kw;
  out_height = (s.input[0] + s.padding[0] + s.padding[1] - s.dilation[0] * (kh - 1) - 1) / s.stride[0] + 1;
  out_width = (s.input[1] + s.padding[2] + s.padding[3] - s.dilation[1] * (kw - 1) - 1) / s.stride[1] + 1;
  step_h = s.stride[0] * pool;
  step_w = s.stride[1] * pool;
  const auto last_h = s.stride[0] * (pool - 1) + s.dilation[0] * (kh - 1), last_w = s.stride[1] * (pool - 1) + s.dilation[1] * (kw - 1);
  constexpr std::int64_t vector = 16;  // whole vectors may be read where a row ends
  rows = (out_height + pool - 1) / pool + last_h / step_h;
  pitch = round_up(round_up((out_width + pool - 1) / pool, vector) + last_w / step_w, vector);
  image = channels * step_h * step_w * rows * pitch;
  for (std::int64_t t = 0; t < taps; ++t)
    for (std::int64_t k = 0; k < pool * pool; ++k) {
      const auto h = s.stride[0] * (k / pool) + s.dilation[0] * (t / kw % kh), w = s.stride[1] * (k % pool) + s.dilation[1] * (t % kw);
      const auto plane = (t / (kw * kh) * step_h + h % step_h) * step_w + w % step_w;
      offset.push_back(static_cast<std::int32_t>((plane * rows + h / step_h) * pitch + w / step_w));
    }
  source.resize(static_cast<std::size_t>(nnz));
  std::iota(source.begin(), source.end(), 0);
  std::sort(source.begin(), source.end(), [&](auto a, auto b) { return index[a] < index[b]; });
  for (auto j : source) {
    while (static_cast<std::int64_t>(begin.size()) <= index[j] / taps) begin.push_back(static_cast<std::int32_t>(tap.size()));
    tap.push_back(static_cast<std::int32_t>(index[j] % taps));
  }
  begin.resize(static_cast<std::size_t>(outputs + 1), static_cast<std::int32_t>(nnz));
}

}  // namespace sparsemeta
