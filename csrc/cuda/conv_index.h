// Where everything is: tiles of pixels, their halo in shared memory, taps, chunks of the table, blocks of the grid.
#pragma once

#include "portable.h"

namespace sparsemeta::cuda {

constexpr int kRows = 8;                  // output channels that one warp sums in registers
constexpr int kMaxWarps = 8;              // of a block: its outputs share the staged input
constexpr int kSharedWords = 48 * 256;    // 48 KB: what every device gives a block without being asked
constexpr int kWord = 4;                  // bytes of a staged number
constexpr int kBatch = 16;                // sums of a weight gradient that a warp reduces over its lanes at once
constexpr int kBatchRow = kLanes + 1;     // so that lanes which read a column each hit a bank of their own
constexpr std::int32_t kLast = 1 << kRows;  // in Tap::rows: the batch ends here

// One image axis of a phase. Output position j reads input `j * step + first + k * gap` for taps k = 0, 1, ...
//
// A tile's input is staged either as it lies (slots are neighbouring inputs) or, where that is smaller, tap by tap (slot
// k * tile + j): so neither stride nor dilation can make the halo larger than what is read.
struct Axis {
  std::int32_t size = 0;                     // inputs
  std::int32_t count = 0, tile = 1, tiles = 0;  // outputs, outputs of a tile, tiles
  std::int32_t step = 1, first = 0;
  std::int32_t slots = 0, unit = 1, tap = 1;  // staged inputs of a tile; slot of output j and tap k: j * unit + k * tap
  std::int32_t inner = 1, outer = 0;          // input of slot m * modulus + n: n * inner + m * outer
  std::int32_t out_first = 0, out_step = 1;   // where output j lies in the result
  Division modulus, by_tile;

  SPARSEMETA_HD int slot(int j) const { return j * unit; }
  SPARSEMETA_HD int input(int begin, int at) const {
    const int q = modulus.quotient(at);
    return begin * step + first + modulus.remainder(at, q) * inner + q * outer;
  }
  SPARSEMETA_HD int out(int j) const { return out_first + j * out_step; }
  SPARSEMETA_HD bool reads(int i) const { return i >= 0 && i < size; }
};

// Output pixels whose taps lie alike: all of a forward pass; of an input gradient those of one remainder by the stride.
struct Phase {
  Axis rows, columns;
  std::int32_t images = 1;                    // of a tile
  std::int32_t image_slots = 0, plane = 0;    // slots of one image, of one channel
  std::int32_t chunks = 0;                    // first entry in Table::chunk_ranges
  Division by_image_slots, by_plane, by_columns, by_image_tile;

  SPARSEMETA_HD std::int64_t tiles(std::int64_t batch) const {
    return (batch + images - 1) / images * rows.tiles * columns.tiles;
  }
};

// A position in the weight at which some of a warp's outputs keep one: slot in the staged input in bytes, so that its
// address is one addition; bits of the outputs.
struct Tap {
  std::int32_t slot, rows;
};

// What is staged at once for one group of outputs: input channels, and the taps and values of each warp.
struct Chunk {
  std::int32_t group = 0, channel = 0, channels = 0, tap = 0, value = 0;  // starts in the table's lists
  std::int32_t warp_tap[kMaxWarps + 1] = {}, warp_value[kMaxWarps + 1] = {};  // from those starts
};

// Head of a table: a block of 32-bit numbers that holds everything derived from one pattern, geometry and tile.
struct Table {
  std::int32_t phases = 0, groups = 0, warps = 1, outputs = 0, nnz = 0, all_chunks = 0, shared_words = 0;
  std::int32_t at_phases = 0, at_ranges = 0, at_chunks = 0, at_channels = 0, at_taps = 0, at_sources = 0;

  SPARSEMETA_HD const std::int32_t* words() const { return reinterpret_cast<const std::int32_t*>(this); }
  SPARSEMETA_HD const Phase& phase(int i) const { return reinterpret_cast<const Phase*>(words() + at_phases)[i]; }
  SPARSEMETA_HD int chunk_begin(const Phase& p, int group) const { return words()[at_ranges + p.chunks + group]; }
  SPARSEMETA_HD const Chunk& chunk(int i) const { return reinterpret_cast<const Chunk*>(words() + at_chunks)[i]; }
  SPARSEMETA_HD const std::int32_t* channels() const { return words() + at_channels; }
  SPARSEMETA_HD const Tap* taps() const { return reinterpret_cast<const Tap*>(words() + at_taps); }
  SPARSEMETA_HD const std::int32_t* sources() const { return words() + at_sources; }  // value -> place in the pattern
  SPARSEMETA_HD std::int64_t blocks(std::int64_t batch) const {
    std::int64_t n = 0;
    for (int i = 0; i < phases; ++i) n += phase(i).tiles(batch) * groups;
    return n;
  }
};

// A tile: its first image, row and column.
struct Place {
  int image, row, column;
};

SPARSEMETA_HD Place place_of(const Phase& p, std::int64_t tile) {
  const std::int64_t rest = tile / p.columns.tiles;
  return {static_cast<int>(rest / p.rows.tiles) * p.images, static_cast<int>(rest % p.rows.tiles) * p.rows.tile,
          static_cast<int>(tile % p.columns.tiles) * p.columns.tile};
}

// A pixel of a tile, from its first image, row and column.
struct Pixel {
  int image, row, column;
};

SPARSEMETA_HD Pixel pixel_of(const Phase& p, int index) {
  const int image = p.by_image_tile.quotient(index), rest = p.by_image_tile.remainder(index, image);
  const int row = p.columns.by_tile.quotient(rest);
  return {image, row, p.columns.by_tile.remainder(rest, row)};
}

SPARSEMETA_HD int slot_of(const Phase& p, const Pixel& at) {
  return at.image * p.image_slots + p.rows.slot(at.row) * p.columns.slots + p.columns.slot(at.column);
}

SPARSEMETA_HD bool exists(const Phase& p, const Place& tile, const Pixel& at, std::int64_t batch) {
  return at.image < p.images && tile.image + at.image < batch && tile.row + at.row < p.rows.count &&
         tile.column + at.column < p.columns.count;
}

// Where a chunk lies in shared memory, in words: taps, input, then one or (for a gradient) two numbers for each value.
struct Layout {
  int input, values, end;

  SPARSEMETA_HD Layout(int taps, int channels, int plane, int values_words)
      : input(2 * taps), values(input + channels * plane), end(values + values_words) {}
};

SPARSEMETA_HD int batch_words(int warps) { return warps * kBatch * kBatchRow; }

// Tiles of a split of the weight gradient's sum: [begin(s), begin(s + 1)).
SPARSEMETA_HD std::int64_t split_begin(std::int64_t tiles, int split, int splits) { return tiles * split / splits; }

}  // namespace sparsemeta::cuda
