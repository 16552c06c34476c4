// Straight-line AVX-512 code for the products of one pattern. The structure is in the code, the values are a stream.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "assembler.h"
#include "conv_plan.h"

namespace sparsemeta {

// How lines lie in memory. Image lines are channels; the first and the last `edge` of them have addresses of their own.
struct Layout {
  std::int64_t lines_in, lines_out, pitch_in, pitch_out;  // pitch: elements from line to line
  std::int64_t mask_row, edge;                            // 0: no masks, no edges
  std::int64_t touch_in, touch_out;                       // pitch of what is prefetched, 0 for nothing
};

struct Part {
  std::size_t entry;
  std::int64_t values;  // where its values begin in the stream
};

// Operands of generated code, at the first vector of positions. x, and so first and last, are whole vectors.
struct ProductOperands {
  const float *x, *first, *last;  // line 0, as line `edge` to `lines_in - edge`, the lines before and the lines behind see it
  const float* values;
  float* y;
  const std::uint16_t* masks;
  const float* bias;
  const float *next, *out;  // about where the next tile's x and this tile's y are: prefetched, whatever is there
  std::int64_t vectors;
};

// y[line][0 .. 16 * vectors) = bias + the weights on the shifted lines of x.
class GeneratedProduct {
 public:
  GeneratedProduct(std::vector<Weight> weights, const Layout& layout);

  bool ready() const { return code_ && code_->entry(); }
  // Of a tile: few, so that its lines stay in the first-level cache; more of a pattern whose code comes from far away.
  std::int64_t tile_vectors() const { return std::clamp<std::int64_t>(static_cast<std::int64_t>(source_.size()) / 1500, 16, 64); }
  const std::vector<std::int32_t>& source() const { return source_; }
  std::int64_t groups() const { return static_cast<std::int64_t>(group_begin_.size()) - 1; }
  std::int64_t parts() const { return static_cast<std::int64_t>(parts_.size()); }
  std::int64_t begin(std::int64_t part) const { return part < parts() ? parts_[static_cast<std::size_t>(part)].values : static_cast<std::int64_t>(source_.size()); }  // in weights
  std::int64_t group_begin(std::int64_t group) const { return group_begin_[static_cast<std::size_t>(group)]; }  // in parts

  // Where in [0, positions) of a group thread `thread` of `team` begins, so that each has as many weights times positions.
  std::int64_t share(std::int64_t group, std::int64_t positions, std::int64_t thread, std::int64_t team) const {
    const auto cost = [&](std::int64_t g) { return begin(group_begin(g)) + g; };
    const auto before = cost(groups()) * positions * thread / team - cost(group) * positions;
    return std::clamp<std::int64_t>(before / (cost(group + 1) - cost(group)), 0, positions);
  }

  void run(std::int64_t part, ProductOperands operands) const {
    const auto& p = parts_[static_cast<std::size_t>(part)];
    operands.values += p.values;
    if (!operands.bias) operands.bias = zeros_.data();
    reinterpret_cast<void (*)(ProductOperands*)>(code_->entry() + p.entry)(&operands);
  }

 private:
  std::vector<Part> parts_;
  std::vector<std::int64_t> group_begin_;
  std::vector<std::int32_t> source_;
  std::vector<float> zeros_;
  std::unique_ptr<Code> code_;
};

struct CorrelationOperands {
  const float *x, *first, *last;
  const float* g;
  const float* before;  // what the sums are added to
  float* sums;
  const std::uint16_t* masks;
  const float *next, *next_g;  // about where the next tile is: prefetched, whatever is there
  std::int64_t vectors, images;
  std::int64_t step, step_g;  // bytes from behind an image's vectors to the next image's; the lines of g follow at once
};

// Neighbouring lines of g and the parts with all of their weights.
struct LineGroup {
  std::int64_t lines_begin, lines_end, parts_begin, parts_end;
};

// sums[j][0 .. 16) += <g line, shifted x line> lane by lane, for at most `most_weights` weights of each part.
class GeneratedCorrelation {
 public:
  static constexpr std::int64_t most_vectors = 28;  // of a tile: long, because every tile loads and stores the sums
  static constexpr std::int64_t most_weights = 28;

  GeneratedCorrelation(std::vector<Weight> weights, const Layout& layout, std::int64_t block_lines);

  bool ready() const { return code_ && code_->entry(); }
  const std::vector<std::int32_t>& source() const { return source_; }
  std::int64_t block_begin(std::int64_t block) const { return block_begin_[static_cast<std::size_t>(block)]; }  // in parts
  std::int64_t begin(std::int64_t part) const { return parts_[static_cast<std::size_t>(part)].values; }         // in weights
  std::int64_t parts() const { return static_cast<std::int64_t>(parts_.size()) - 1; }
  const std::vector<LineGroup>& groups() const { return groups_; }  // of each block of lines, one block after another

  void run(std::int64_t part, CorrelationOperands operands) const {
    prefetch(part + 1);
    reinterpret_cast<void (*)(CorrelationOperands*)>(code_->entry() + parts_[static_cast<std::size_t>(part)].entry)(&operands);
  }

 private:
  // Code of a large pattern comes from far away, and hardware hardly fetches ahead in it: bring it to where a miss is short.
  void prefetch(std::int64_t part) const {
    if (part >= parts()) return;
    const auto end = parts_[static_cast<std::size_t>(part + 1)].entry;
    for (auto at = parts_[static_cast<std::size_t>(part)].entry; at < end; at += 64) __builtin_prefetch(code_->entry() + at, 0, 2);
  }

  std::vector<Part> parts_;  // and where the last one ends
  std::vector<std::int64_t> block_begin_;
  std::vector<LineGroup> groups_;
  std::vector<std::int32_t> source_;
  std::unique_ptr<Code> code_;
};

// The weights of lines that were packed, where shifts count from the start of a line.
std::vector<Weight> packed_weights(const Index& index);

}  // namespace sparsemeta
