// Straight-line AVX-512 code for the products of one pattern. The structure is in the code, the values are a stream.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "assembler.h"
#include "conv_plan.h"

namespace sparsemeta {

// sums[line][0 .. 16 * vectors) (+)= the weights of one block of input lines on one group of output lines.
class GeneratedProduct {
 public:
  using Call = void (*)(const float* x, const float* values, float* sums, std::int64_t vectors, const float* bias, const float* touched);
  enum class Touch { none, input, output };
  struct Part {
    std::size_t entry;
    std::int64_t values;  // where its values begin in the stream
    Touch touch;          // what it brings into the cache while it computes
  };

  // Elements between the channels of the two images, 0 where a line is not a channel.
  GeneratedProduct(const Index& index, std::int64_t in_channel, std::int64_t out_channel);

  bool ready() const { return code_ && code_->entry(); }
  std::int64_t tile_vectors() const { return tile_vectors_; }
  std::int64_t sums_pitch() const { return sums_pitch_; }  // elements between the lines of sums
  const std::vector<std::int32_t>& source() const { return source_; }

  // `bias` may be null. `next` and `out` are where the first channels of the images of the next chunk and of this tile
  // are: the code prefetches from there on, whatever is there.
  void run(const float* x, const float* values, float* sums, std::int64_t vectors, const float* bias, const float* next,
           const float* out) const {
    if (!bias) bias = zeros_.data();
    for (const auto& part : parts_)
      reinterpret_cast<Call>(code_->entry() + part.entry)(x, values + part.values, sums, vectors, bias,
                                                          part.touch == Touch::input ? next : out);
  }

 private:
  std::int64_t tile_vectors_, sums_pitch_;
  std::vector<Part> parts_;
  std::vector<std::int32_t> source_;
  std::vector<float> zeros_;
  std::unique_ptr<Code> code_;
};

// sums[j][0 .. 16) += <g line, shifted x line> lane by lane, for the weights of one block of input lines.
class GeneratedCorrelation {
 public:
  using Call = void (*)(const float* x, const float* g, float* sums, std::int64_t vectors);

  GeneratedCorrelation(const Index& index, std::int64_t g_pitch);

  bool ready() const { return code_ && code_->entry(); }
  std::int64_t tile_vectors() const { return tile_vectors_; }
  const std::vector<std::int32_t>& source() const { return source_; }

  void run(std::int64_t block, const float* x, const float* g, float* sums, std::int64_t vectors) const {
    const auto& part = parts_[static_cast<std::size_t>(block)];
    reinterpret_cast<Call>(code_->entry() + part.entry)(x, g, sums + part.values * 16, vectors);
  }

 private:
  std::int64_t tile_vectors_;
  std::vector<GeneratedProduct::Part> parts_;
  std::vector<std::int32_t> source_;
  std::unique_ptr<Code> code_;
};

}  // namespace sparsemeta
