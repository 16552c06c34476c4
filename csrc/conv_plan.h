// What a masked convolution is to a kernel: planes, flat shifts and an index over the kept weights. See README.md.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace sparsemeta {

class GeneratedProduct;
class GeneratedCorrelation;

// Made at its first use, by whichever thread comes first.
template <class T>
class Lazy {
 public:
  template <class Make>
  const T& get(Make make) const {
    std::call_once(once_, [&] { made_ = make(); });
    return *made_;
  }

 private:
  mutable std::once_flag once_;
  mutable std::shared_ptr<const T> made_;
};

// One side of the convolution (input or output) as flat lines: a line is a channel of one phase of the stride.
struct Phase {
  std::int64_t row_begin, row_end, col_begin, col_end;  // plane coordinates that hold an element of the image
  std::int64_t row_offset, col_offset;                  // image row = plane row * row_step + row_offset, same for columns
};

struct Plane {
  std::int64_t channels, height, width;  // of the image
  std::int64_t row_step, col_step;       // the stride on the input side, 1 on the output side
  std::vector<Phase> phases;             // line = channel * phases.size() + phase
  bool covered;                          // every element of the image lies in some phase

  std::int64_t lines() const { return channels * static_cast<std::int64_t>(phases.size()); }
};

// Weights that feed one output line from one block of input lines: entries [begin, end) of shift and source.
struct Segment {
  std::int32_t line, begin, end;
  bool first;  // no earlier block wrote this line
};

// Kept weights sorted by (block of input lines, output line), so that a block's inputs stay in the first-level cache.
struct Index {
  std::int64_t lines_in, lines_out;
  std::int64_t lead, pitch;                    // elements packed ahead of a chunk's first position; between packed lines
  std::int64_t capacity;                       // most positions in a chunk
  std::int64_t block_lines;
  std::vector<std::int64_t> block_begin;       // segments of block b: [block_begin[b], block_begin[b + 1])
  std::vector<Segment> segments;
  std::vector<std::int32_t> shift;             // where a weight reads: line * pitch + lead +- tap
  std::vector<std::int32_t> source;            // its position in values
  std::vector<std::int32_t> empty;             // output lines without a weight
  std::int64_t channel_in, channel_out;        // elements between the channels of contiguous images, 0: a channel is several lines
  Lazy<GeneratedProduct> generated;

  std::int64_t blocks() const { return static_cast<std::int64_t>(block_begin.size()) - 1; }
};

// A kept weight for generated code: line `out` += value * line `line`, `shift` elements on, at the positions of `mask`.
struct Weight {
  std::int64_t line, shift, out;
  std::int32_t mask, source, row;  // row: of its tap in the kernel
};

// A convolution of stride 1 whose output has the size of its input needs no packing: every tap is a shift of the whole
// plane, and a mask takes away what the shift brings in from other rows and channels.
struct InPlace {
  bool possible = false;
  std::int64_t plane = 0, vectors = 0;  // positions of a plane, and vectors of them
  std::int64_t reach = 0;               // largest shift
  std::int64_t mask_row = 0;            // masks for each vector: 0 is the positions inside the plane, then one for each tap
  std::vector<Weight> weights, transposed;
  std::vector<std::uint16_t> masks, transposed_masks;  // [vectors][mask_row]
  Lazy<GeneratedProduct> forward, input_grad;
  Lazy<GeneratedCorrelation> weight_grad;

  // Channels at either end of an image from which a shifted vector can reach out of the image; all, where the ends meet.
  std::int64_t edge(std::int64_t channels) const {
    const auto ends = (reach + 16 + plane - 1) / plane;
    return 2 * ends < channels ? ends : channels;
  }
};

struct ConvShape {
  std::array<std::int64_t, 4> weight;  // O, I / groups, kh, kw
  std::array<std::int64_t, 2> input;   // H, W
  std::array<std::int64_t, 2> stride;
  std::array<std::int64_t, 4> padding;  // top, bottom, left, right
  std::array<std::int64_t, 2> dilation;
  std::int64_t groups;
};

// Positions whose sums a kernel keeps in registers, and bytes of the caches that packed lines may fill.
struct Machine {
  std::int64_t tile, first_level_bytes, second_level_bytes;
  bool generate;  // machine code for each pattern
};

struct ConvPlan {
  ConvPlan(const ConvShape& shape, const std::int64_t* index, std::int64_t nnz, const Machine& machine);

  Plane x, y;
  std::int64_t pitch, rows, halo;  // flat row length, flat rows of an image, largest shift of a tap
  std::int64_t nnz;
  Index forward, input_grad;       // the weight gradient walks `forward`
  std::int64_t grad_capacity, grad_pitch;  // of the lines of the output's gradient that it holds meanwhile
  bool generate;                           // kernels may be generated
  Lazy<GeneratedCorrelation> generated;
  InPlace in_place;
};

}  // namespace sparsemeta
