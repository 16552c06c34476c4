// Derives a table (conv_index.h) from a pattern and a geometry, on the CPU.
#pragma once

#include <array>
#include <vector>

#include "conv_index.h"

namespace sparsemeta::cuda {

struct ConvShape {
  std::array<std::int64_t, 4> weight;  // O, C / groups, kh, kw
  std::array<std::int64_t, 2> input;   // H, W
  std::array<std::int64_t, 2> stride;
  std::array<std::int64_t, 4> padding;  // top, bottom, left, right
  std::array<std::int64_t, 2> dilation;
  std::int64_t groups;
};

enum class Pass { kForward, kInputGrad, kWeightGrad };

// `pixels`: of a tile, at most. Throws std::invalid_argument where not even one pixel's taps fit in shared memory.
std::vector<std::int32_t> make_table(const ConvShape& shape, const std::int64_t* index, std::int64_t nnz, Pass pass, int pixels);

inline const Table& as_table(const std::vector<std::int32_t>& words) { return *reinterpret_cast<const Table*>(words.data()); }

}  // namespace sparsemeta::cuda
