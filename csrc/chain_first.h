// The first block of a chain reads images that never change. See README.md, "The first block".
#pragma once

#include <cstdint>
#include <vector>

#include "conv_plan.h"

namespace sparsemeta {

// Images as planes from which a tap reads neighbouring pooled cells as neighbouring elements: plane (c, f, h) holds the rows
// and columns of channel c that are f and h modulo stride times pool.
struct FirstBlock {
  static constexpr std::int64_t most_taps = 64;  // the covariance of all of them is held, so they must be few

  FirstBlock() = default;
  FirstBlock(const ConvShape& shape, const std::int64_t* index, std::int64_t nnz, std::int64_t pool);

  bool fits() const { return taps > 0; }
  std::int64_t outputs() const { return shape.weight[0]; }
  std::int64_t kept() const { return static_cast<std::int64_t>(tap.size()); }

  ConvShape shape{};
  std::int64_t pool = 1, taps = 0;             // taps: of a dense weight's row
  std::int64_t out_height = 0, out_width = 0;  // of the convolution
  std::int64_t step_h = 1, step_w = 1;         // phases: stride times pool
  std::int64_t rows = 0, pitch = 0;            // of a plane
  std::int64_t image = 0;                      // elements of an image's planes
  std::vector<std::int32_t> offset;            // [taps, pool * pool]: where a tap reads for each element of a cell
  std::vector<std::int32_t> begin;             // kept weights of output o, in the order below: [begin[o], begin[o + 1])
  std::vector<std::int32_t> tap, source;       // of each kept weight: its tap, its position in values
};

}  // namespace sparsemeta
